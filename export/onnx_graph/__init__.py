"""From a torch network to an ONNX graph: folding, weight rounding, LSTM operators, serialisation."""
