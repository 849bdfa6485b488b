"""From a checkpoint to ONNX and a bundle, with the parity gates."""
