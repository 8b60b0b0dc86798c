"""What does a trial cost the machine? Each file reads one thing, at the moments the trial asks."""
