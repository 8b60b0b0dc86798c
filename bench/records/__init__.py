"""What a campaign's folder holds: rows, the raw times of every batch, certificates."""
