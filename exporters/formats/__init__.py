"""A graph to a file: ONNX and TorchScript, and the rewrites of the former."""
