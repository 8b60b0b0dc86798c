"""Check that each contestant does the work that the campaign requests."""

from loaderbench.certify.certification import certify

__all__ = ["certify"]
