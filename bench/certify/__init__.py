"""Check that each contestant does the work that the campaign asks for."""
