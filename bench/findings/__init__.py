"""What the rows of a campaign say. Imports nothing that measures.

`raw_times.analyse_folder` returns an `Analysis` of a campaign's folder; `analysis.analyse` is its pure part. `verdicts`
states it in sentences, `check.check` judges each row, `regression.compare` compares two runs of the performance suite.
"""
