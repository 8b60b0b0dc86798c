"""Measure how fast this machine does each step of the work, and which step limits a contestant."""
