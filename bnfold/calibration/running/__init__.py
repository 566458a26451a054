"""Runs graphs under ONNX Runtime, in child processes or on other machines: it knows programs, and no model."""
