"""The benchmarks, one module or folder for each command of `unmask bench`."""
