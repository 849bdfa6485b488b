"""CPU engine on onnxruntime: int8 arithmetic, wider convolution groups, and a cache of optimised graphs."""
