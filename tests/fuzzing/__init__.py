"""Read mutated files of every kind that strangers may hand over."""
