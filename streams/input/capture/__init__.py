"""Connections to sources: opening, decoding, capture times, orientation and translation of FFmpeg errors."""
