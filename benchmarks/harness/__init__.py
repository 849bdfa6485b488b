"""Parts that all benchmarks share: records and their comparison, stage timing, capacity search, errors."""
