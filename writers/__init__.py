"""One file per library: how it stores canonical images. See CONTRIBUTING.md."""
