"""CPU time, latency and memory by the number of cameras and of faces."""
