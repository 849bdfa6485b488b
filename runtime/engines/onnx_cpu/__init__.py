"""CPU engine on onnxruntime, with its int8 arithmetic and its cache of optimised graphs."""
