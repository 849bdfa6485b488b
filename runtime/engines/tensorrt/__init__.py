"""Engine for NVIDIA GPUs: building, caching and running TensorRT engines through pycuda."""
