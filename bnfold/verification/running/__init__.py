"""Both models as a whole, under ONNX Runtime, against a measured noise floor."""
