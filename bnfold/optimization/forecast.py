"""The verbs that write nothing: what would become of a model."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from typing import Unpack

import onnx

from bnfold.folding import FoldArguments, FoldOptions, Plan
from bnfold.folding import plan as make_plan
from bnfold.folding.asked import asked as answers_to
from bnfold.limits import Deadline
from bnfold.model_io import ModelLike, load, to_proto
from bnfold.optimization.gate import FailOn, Gate
from bnfold.optimization.inventory import Change, Inventory
from bnfold.optimization.results import Checked


def plan(model: ModelLike, **options: Unpack[FoldArguments]) -> Plan:
    """Finds out what would become of each affine node, and changes nothing.

    Args:
        model: A path, bytes, a file object, an `onnx.ModelProto`, an `onnx_ir.Model` or torch's `ONNXProgram`.
        options: The attributes of `FoldOptions`: what may be folded, and what becomes of the rest.

    Raises:
        ModelError: The model cannot be read, a pattern in `keep` matches no node, or stated sizes do not fit the model.
        ValueError: `leftover` or `max_growth` is none.
    """
    asked = FoldOptions(**options)
    return make_plan(load(model), asked)


def fold(model: ModelLike, **options: Unpack[FoldArguments]) -> onnx.ModelProto:
    """The folded model in memory, not verified; arguments as in `plan`.

    Raises:
        ModelError: The model cannot be read, is over 2 GiB, or a pattern in `keep` matches no node.
    """
    return to_proto(plan(model, **options).model)


def check(
    model: ModelLike,
    *,
    timeout: float = math.inf,
    fail_on: Collection[FailOn | str] = Gate.fail_on,
    allow: Sequence[str] = (),
    node: str | None = None,
    **options: Unpack[FoldArguments],
) -> Checked:
    """Tells which BatchNormalizations would fold and why others stay.

    Args:
        model: As in `plan`.
        timeout: Seconds, after which what has not been decided stays, for that reason.
        fail_on: What there may not be, for the result to be `ok`: "foldable" BatchNormalizations, those in "training"
            mode, other "affines" that could fold, or "any" BatchNormalization. Mul and Add that spell one out are one.
        allow: Exceptions: names of nodes or globs of them, and names of reasons such as TRAINING_MODE.
        node: The name of an affine node, or a glob: tell each operator that it came to, and what that said.
        options: As in `plan`.

    Raises:
        ModelError: The model cannot be read, or a pattern in `keep`, or `node`, matches no node.
        ValueError: There is no such thing to fail on, or `leftover` or `max_growth` is none.
    """
    gate, asked = Gate(fail_on, allow), FoldOptions(**options)
    loaded = load(model)
    deadline = Deadline.after(timeout)
    answers = answers_to(loaded, node, asked, deadline) if node is not None else None
    before = Inventory.of(loaded.proto)
    planned = make_plan(loaded, asked, deadline)
    return Checked(named(model), planned, gate, Change.of(before, loaded, planned), answers)


def named(model: ModelLike) -> str:
    """What to call a model in a report."""
    return os.fspath(model) if isinstance(model, str | os.PathLike) else "model"
