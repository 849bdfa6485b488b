"""Comparison of torch with the deployed engines: parity gates, and the table of `unmask export --check`."""
