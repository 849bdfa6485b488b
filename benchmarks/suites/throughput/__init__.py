"""Number of live streams that this machine sustains."""
