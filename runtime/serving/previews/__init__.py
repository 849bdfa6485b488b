"""Frames as JPEG for the clients that request them: requests, encoding and distribution."""
