"""What a campaign's folder holds: conditions, rows, raw times of every batch, certificates.

`folder.CampaignFolder` reads all of it, `trials_csv` appends rows, `record.Record` is their schema, `timeline.Timeline`
the raw times of a trial, `certificates.Certificate` the work that a contestant was seen to do.
"""
