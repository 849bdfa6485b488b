"""Everything that needs an NVIDIA GPU: TensorRT against PyTorch, and the limits of the GPU."""
