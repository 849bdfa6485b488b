"""Benchmark on labelled whole videos through the path of `unmask scan`."""
