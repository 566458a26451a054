#!/usr/bin/env bash
# I want a gate: a pull request with a model that could be smaller, or that is in training mode, must not pass.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

printf '[tool.bnfold]\nfail-on = ["foldable", "training"]\n' > pyproject.toml
ends_with 1 bnfold check models/digits_resnet.onnx models/digits_mlp.train.onnx > findings.txt
wanted "8 of 8 BatchNormalizations would fold" findings.txt
wanted "not calibrated" findings.txt
ends_with 1 bnfold check --format markdown models/digits_resnet.onnx > summary.md
wanted "|" summary.md
ends_with 2 bnfold check models/gone.onnx 2> error.txt
wanted "No such file" error.txt

# what the gate asks for, and then it is open
bnfold optimize models/digits_resnet.onnx --in-place --verify=require --format json > report.json
bnfold optimize models/digits_mlp.train.onnx --calibrate models/digits_train.npz --in-place > calibrated.txt
bnfold check models/digits_resnet.onnx models/digits_mlp.train.onnx
python -m json.tool report.json > /dev/null
