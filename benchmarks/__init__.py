"""Benchmarks of speed and capacity, one for each command of `unmask bench`."""
