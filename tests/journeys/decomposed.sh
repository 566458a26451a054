#!/usr/bin/env bash
# My converter (TensorFlow, Keras) has written Mul and Add where I had BatchNormalizations. I want them gone.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

model=models/digits_resnet.decomposed.onnx
ends_with 1 bnfold check "$model" > check.txt
wanted "8 of 8 BatchNormalizations would fold" check.txt
bnfold optimize "$model" -o small.onnx | tee report.txt
wanted "verified equivalent" report.txt
bnfold check small.onnx
bnfold verify "$model" small.onnx --data models/digits_test.npz

python - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime

operators = {node.op_type for node in onnx.load("small.onnx").graph.node}
assert "Mul" not in operators, operators
images, digits = np.load("models/digits_test.npz")["image"], np.load("models/digits_labels.npz")["test"]
(logits,) = onnxruntime.InferenceSession("small.onnx").run(None, {"image": images})
assert (logits.argmax(axis=1) == digits).sum() == 791
PYTHON
