"""Measure what a campaign lacks; every outcome is a row."""
