"""What the machine has and does: counters, page cache, child processes, locks, whole files, progress bars."""
