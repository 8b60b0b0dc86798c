"""What a campaign asks for, and which of it the rows still lack: pure functions and models.

`campaign.load` returns a `Campaign` from a TOML file, whose tables are in `schema`. `plan.missing` returns the trials
to run next, each of a `variant.Variant`. `tuning` searches for best settings, `disturbances` flags trials, `forecast`
predicts the duration, and `registry` finds the adapters.
"""
