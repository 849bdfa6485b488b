"""Training: data, model, fit and evaluation. The home of torch."""
