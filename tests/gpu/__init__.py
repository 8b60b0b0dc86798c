"""Tests that need a GPU: `make gpu-check` runs them."""
