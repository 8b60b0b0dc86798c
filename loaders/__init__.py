"""One file per library: how it turns a stored artifact into batches. See CONTRIBUTING.md."""
