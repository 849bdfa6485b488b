"""Outputs that may block or fail, such as standard error and recordings, each with a thread of its own."""
