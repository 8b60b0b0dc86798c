"""Run one trial in one process or its ranks. Owns the clock."""
