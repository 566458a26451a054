"""Random models of one operator, of any version of any schema, given to shape inference and to the verbs.

    python benchmarks/operators.py inference --count 100000 --seed 7
    python benchmarks/operators.py regions --count 1000         check, optimize, and verify region by region
    python benchmarks/operators.py fold --write 70000123        writes the model of that number to model_70000123.onnx

tests/mutants/operators.py says how they are made. `inference` lets ONNX infer the operator alone, as a model and by
itself, where bnfold lets it do so in its own process. All else is what benchmarks/mutate.py does to that depth: there
the operator, or a function of it, has a BatchNormalization and a Conv behind it. A fault is what ends the process, is
an error in bnfold (exit code 70), or takes longer than --seconds. Exit status 1 if there is any; one found here belongs
in tests/mutants.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest.mock import patch

from onnx import ModelProto

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mutants.examine import Depth, examine
from mutants.operators import network, operator

from benchmarks.mutate import run, with_options
from bnfold.confined import Exhausted
from bnfold.graph import inference
from bnfold.graph.notes import types_made


def main() -> int:
    """Exit status 1 if there is any fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["inference", *(depth.value for depth in Depth)])
    options = with_options(parser).parse_args()
    is_bare = options.target == "inference"
    target = infer if is_bare else partial(examine, depth=Depth(options.target))
    return run(options, operator if is_bare else network, target, "models of one operator")


def infer(data: bytes) -> str:
    """Inference of an operator, as a model and by itself; what bnfold does in a copy of its process is left out."""
    model = ModelProto.FromString(data)
    node, opset = model.graph.node[0], model.opset_import[0].version
    types = {entry.name: entry.type for entry in model.graph.input}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    with patch.object(inference, "apart", side_effect=Exhausted) as copies:
        with suppress(Exception):  # it has many, of models that are wrong
            inference.inferable(model).inferred()
        with suppress(Exception):
            types_made(node, opset, types, stored)
    return "ok: in a copy" if copies.called else "ok: in this process"


if __name__ == "__main__":
    raise SystemExit(main())
