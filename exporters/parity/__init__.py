"""Proof with numbers that eager, TorchScript and ONNX compute the same."""
