"""A detector as one ONNX graph."""
