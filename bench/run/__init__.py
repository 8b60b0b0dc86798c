"""Measure what a campaign lacks; every outcome of a trial is a row.

`runner.run` is the whole of it: `environment` describes the conditions, `one_trial` runs a trial in a process of its
own, `bucket_under_test` gives it its data over a network, and `trial_table` shows how far the campaign is.
"""
