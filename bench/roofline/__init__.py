"""Measure how fast this machine does each step of the work, and which step limits a contestant."""

from loaderbench.roofline.ceilings import limit_columns, limit_rows

__all__ = ["limit_columns", "limit_rows"]
