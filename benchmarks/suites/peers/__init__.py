"""Cost of a verdict: unmask against the per-frame detectors that a user would pick instead."""
