#!/usr/bin/env bash
# I have new data. I want to know whether the statistics still fit it, and new ones if not, without labels or training.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

python - <<'PYTHON'
import numpy as np

for part in ("train", "test"):  # the same digits, photographed with a third of the contrast
    images = np.load(f"models/digits_{part}.npz")["image"]
    np.savez(f"faint_{part}.npz", image=np.float32(0.5 + 0.3 * (images - 0.5)))
PYTHON

bnfold drift models/digits_resnet.onnx --data models/digits_train.npz | tee fits.txt
wanted ": fine" fits.txt
bnfold drift models/digits_resnet.onnx --data faint_train.npz | tee drifted.txt
wanted ": recalibrate" drifted.txt
bnfold calibrate models/digits_resnet.onnx --data faint_train.npz -o calibrated.onnx
bnfold optimize calibrated.onnx -o small.onnx | tee report.txt
wanted "verified equivalent" report.txt

python - <<'PYTHON'
import numpy as np
import onnxruntime

images, digits = np.load("faint_test.npz")["image"], np.load("models/digits_labels.npz")["test"]


def right(model):
    (logits,) = onnxruntime.InferenceSession(model).run(None, {"image": images})
    return (logits.argmax(axis=1) == digits).mean()


before, after = right("models/digits_resnet.onnx"), right("small.onnx")
print(f"{before:.3f} right before, {after:.3f} after")
assert before < 0.5 < 0.95 < after
PYTHON
