"""Connections to sources: opening, decoding, capture times, rotation and translation of FFmpeg's errors."""
