"""Clips of a source: its newest packets, and their remuxing into a video file without encoding them again."""
