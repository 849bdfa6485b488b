"""Connections to sources: opening, decoding, capture times and translation of errors."""
