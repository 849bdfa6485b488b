"""Outputs that may block or fail, such as standard error and recordings, each on a thread of its own."""
