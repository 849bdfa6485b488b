"""Synthetic fakes: blended faces for training, and the built-in demo stream."""
