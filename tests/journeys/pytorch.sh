#!/usr/bin/env bash
# I have a net with branches in PyTorch. I want the small one, and that it answers as mine does. Needs torch, onnxscript.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat > net.py <<'PYTHON'
import numpy as np
import torch
from torch import nn

import bnfold


class Block(nn.Module):
    """As in RepVGG: three branches while it is trained, each with a BatchNormalization of its own."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.narrow = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.identity = nn.BatchNorm2d(8)

    def forward(self, x):
        return torch.relu(self.wide(x) + self.narrow(x) + self.identity(x))


torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 3), Block(), Block(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
model(torch.randn(32, 3, 16, 16))  # statistics that are not the initial ones
model.eval()
x = torch.randn(1, 3, 16, 16)
np.savez("truth.npz", x=x.numpy(), y=model(x).detach().numpy())
torch.onnx.export(model, (x,), "legacy.onnx", dynamo=False, input_names=["x"], output_names=["y"])
program = torch.onnx.export(model, (x,), dynamo=True, input_names=["x"], output_names=["y"], verbose=False)
assert bnfold.optimize(program, "dynamo.small.onnx").verification
PYTHON
python -W ignore net.py > export.txt

bnfold optimize legacy.onnx -o legacy.small.onnx | tee report.txt
wanted "verified equivalent" report.txt
for small in legacy.small.onnx dynamo.small.onnx; do
  bnfold check "$small" --fail-on any
  python - "$small" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime

truth = np.load("truth.npz")
(y,) = onnxruntime.InferenceSession(sys.argv[1]).run(["y"], {"x": truth["x"]})
np.testing.assert_allclose(y, truth["y"], rtol=1e-4, atol=1e-5)
convs = sum(node.op_type == "Conv" for node in onnx.load(sys.argv[1]).graph.node)
assert convs == 3, f"{convs} Convs: the branches have not become one each"
PYTHON
done
