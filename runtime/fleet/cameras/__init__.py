"""Cameras of a fleet: workers on a Ray cluster watch them, one process numbers and serves their messages."""
