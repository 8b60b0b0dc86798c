"""Loaders, one module per library, which turn a stored format into batches. See CONTRIBUTING.md."""
