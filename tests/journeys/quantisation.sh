#!/usr/bin/env bash
# I quantise with ONNX Runtime. I want int8 without BatchNormalizations in between, and no answers lost.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

bnfold optimize models/digits_resnet.onnx -o folded.onnx | tee report.txt
wanted "verified equivalent" report.txt
python - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static


class Images(CalibrationDataReader):
    def __init__(self, images):
        self.batches = iter(np.array_split(images, 20))

    def get_next(self):
        return next(({"image": batch} for batch in self.batches), None)


def quantised(model, output):
    quantize_static(
        model,
        output,
        Images(np.load("models/digits_train.npz")["image"]),
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,  # for processors without VNNI
    )
    return [node.op_type for node in onnx.load(output).graph.node]


before, after = quantised("models/digits_resnet.onnx", "before.onnx"), quantised("folded.onnx", "after.onnx")
assert "BatchNormalization" in before
assert "BatchNormalization" not in after
assert len(after) < 0.7 * len(before), (len(before), len(after))
images, digits = np.load("models/digits_test.npz")["image"], np.load("models/digits_labels.npz")["test"]
(logits,) = onnxruntime.InferenceSession("after.onnx").run(None, {"image": images})
right = (logits.argmax(axis=1) == digits).sum()
assert right >= 791 - 8, f"{right} of 797 right; 791 were, in float"
print(f"{len(before)} -> {len(after)} nodes in int8, {right} of 797 right")
PYTHON
