"""Features that are computed from face crops without a neural network."""
