"""Sources that others push frames to: standard input, and frames handed over by the server."""
