"""Write a trained checkpoint as a model bundle (ONNX), and prove that it matches the checkpoint."""
