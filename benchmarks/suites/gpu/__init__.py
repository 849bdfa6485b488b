"""TensorRT against PyTorch on an NVIDIA GPU, and the limits of the GPU."""
