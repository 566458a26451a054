"""Nets that are trained with many branches, as bnfold leaves their ONNX file, beside timm's own form for deployment.

    pip install torch timm onnx bnfold
    python benchmarks/reparameterize.py [NAME...] > benchmarks/results/reparameterize.md

`timm.utils.reparameterize_model` has the classes at hand, each with a method written for it; bnfold has the file alone.
Counted are all nodes but Constant and Identity of a constant, of which exporters write as many as they like.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import onnx
import timm
import torch
from timm.utils import reparameterize_model

import bnfold

_NAMES = (
    "repvgg_a0",
    "mobileone_s0",
    "fastvit_t8",
    "repvit_m0_9",
    "repghostnet_050",
    "ghostnetv3_050",
    "inception_next_atto",
    "edgenext_xx_small",
)


def export(net: torch.nn.Module, path: Path) -> Path:
    image = torch.zeros(1, 3, 224, 224)
    torch.onnx.export(net, (image,), path, dynamo=False, do_constant_folding=True, opset_version=17)
    return path


def nodes(path: Path) -> int:
    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    return sum(
        node.op_type != "Constant" and not (node.op_type == "Identity" and node.input[0] in constants)
        for node in graph.node
    )


def row(name: str, folder: Path) -> str:
    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False).eval()
    trained = export(net, folder / "trained.onnx")
    deployed = export(reparameterize_model(net), folder / "deployed.onnx")
    folded = folder / "folded.onnx"
    result = bnfold.optimize(trained, folded, overwrite=True)
    assert result.verification is not None
    counts = (nodes(path) for path in (trained, deployed, folded))
    return f"| {name} | {' | '.join(map(str, counts))} | {result.verification.verdict.value} |"


def main(names: list[str]) -> None:
    print(f"bnfold {bnfold.__version__}, timm {timm.__version__}, torch {torch.__version__}\n")
    print("| net | as trained | `reparameterize_model` | bnfold | verified |")
    print("| --- | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or _NAMES:
            print(row(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
