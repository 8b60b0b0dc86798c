"""Loaders with one known disease each, on which the doctor is tried."""
