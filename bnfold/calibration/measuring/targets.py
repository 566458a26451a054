"""The BatchNormalizations of a model: which can be measured, which have to be left alone, which make it impossible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np

from bnfold import batchnorm
from bnfold.affine import Affine, FloatArray
from bnfold.batchnorm import BatchNorm
from bnfold.calibration.error import CalibrationError
from bnfold.graph import Graph, Op, Value
from bnfold.reasons import Refusal, Refused

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_STEPS = frozenset({"Ceil", "Floor", "Round", "Sign"})
_DROPOUT_MODE_INPUT = 2
_STATISTICS_HAVE_A_TYPE_FROM = 14  # of their own
_LOOKED_AT = 4000  # names, for one that looks like a mistyped pattern: a second at the most
# torch's exporter notes what each node was; this is a BatchNorm in training mode, whatever the node says now.
_TORCH_TRAINING_BN = "_native_batch_norm_legit_functional"

NO_BN = (
    "no BatchNormalization in this model: exporters fold them. Export with torch.onnx.export(model, …, dynamo=False, "
    "training=torch.onnx.TrainingMode.EVAL, do_constant_folding=False), or with dynamo=True, optimize=False; "
    "for Keras, tf2onnx keeps them. A model that was quantized or pruned is matched to its float one by --reference "
    "FLOAT.onnx"
)


@dataclass(frozen=True, eq=False)
class Target:
    """A BatchNormalization to measure.

    Attributes:
        op: the node, in the graph it was found in.
        name: of the node, or of its output.
        mean: as stored, float64; 0 where it is missing.
        var: as stored, float64; 1 where it is missing.
        dtype: of the stored statistics, in which new ones are written.
        is_known: whether they are stored at all.
    """

    op: Op
    name: str
    mean: FloatArray
    var: FloatArray
    dtype: np.dtype[Any]
    is_known: bool = True

    @property
    def x(self) -> Value:
        """What it normalises, `[N, C, …]`."""
        return self.op.data(0)

    @cached_property
    def _gamma_and_beta(self) -> tuple[FloatArray, FloatArray]:
        return self.op.constant(batchnorm.GAMMA).float64(), self.op.constant(batchnorm.BETA).float64()

    def affine(self, mean: FloatArray, var: FloatArray) -> Affine:
        """What it computes with these statistics, for an input of rank 4.

        Raises:
            Refused: gamma or beta is computed, or variance + epsilon is not positive.
        """
        return BatchNorm(*self._gamma_and_beta, mean, var, batchnorm.epsilon(self.op)).affine(4)

    @property
    def channels(self) -> int:
        return self.mean.size

    def refuse_senseless(self) -> None:
        """Raises a CalibrationError if it holds nothing, or what can be no statistics."""
        if not self.is_known:
            raise CalibrationError(f"{self.name}: holds no statistics: calibrate it first (bnfold calibrate)")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.var).all()):
            raise CalibrationError(f"{self.name}: holds statistics that are not finite")
        epsilon = batchnorm.epsilon(self.op)
        if not (self.var + epsilon > 0).all():
            why = f"holds a variance of {self.var.min():.3g}, with an epsilon of {epsilon:g}"
            raise CalibrationError(f"{self.name}: {why}")

    def type_of(self, mean: FloatArray, var: FloatArray) -> np.dtype[Any]:
        """The type that the model will hold these statistics in: float32 instead of float16 where they need it."""
        if self.dtype != np.float16 or self.op.opset < _STATISTICS_HAVE_A_TYPE_FROM:
            return self.dtype
        largest = max(np.abs(mean).max(initial=0), np.abs(var).max(initial=0))
        return self.dtype if np.isfinite(_rounded(np.asarray(largest), self.dtype)) else np.dtype(np.float32)

    def stored(self, mean: FloatArray, var: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The statistics as the model will hold them, as float64.

        Raises:
            CalibrationError: they do not fit its type.
        """
        dtype = self.type_of(mean, var)
        held = _rounded(mean, dtype), _rounded(var, dtype)
        if not all(np.isfinite(values).all() for values in held):
            largest = max(np.abs(mean).max(), np.abs(var).max())
            instead = ", the only type that they may have before opset 14" if dtype == np.float16 else ""
            raise CalibrationError(f"{self.name}: a statistic of {largest:.3g} does not fit {dtype}{instead}")
        return held


def _rounded(values: FloatArray, dtype: np.dtype[Any]) -> FloatArray:
    with np.errstate(over="ignore"):
        return np.asarray(values.astype(dtype).astype(np.float64))


@dataclass(frozen=True)
class Skipped:
    """A BatchNormalization that is left as it is, and why."""

    name: str
    why: str
    is_asked: bool = False  # for by the user


@dataclass(frozen=True)
class Selection:
    """Which BatchNormalizations to calibrate, by patterns for their names as in file names; all of them without any.

    Attributes:
        only: none but those.
        keep: and not those.
    """

    only: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def leaves_out(self, op: Op) -> bool:
        """Whether the user wants it as it is."""
        return bool(self.only and not _matches(op, self.only)) or _matches(op, self.keep)

    def check(self, ops: Sequence[Op], what: str = "BatchNormalization") -> None:
        """Raises a CalibrationError if a pattern matches none of the ops, which are called so."""
        for pattern in (*self.only, *self.keep):
            if not any(_matches(op, [pattern]) for op in ops):
                near = get_close_matches(pattern, [op.label for op in ops[:_LOOKED_AT]])
                hint = f"; near it: {', '.join(near)}" if near else ""
                raise CalibrationError(f"no {what} matches {pattern!r}{hint}")


ALL = Selection()


def _matches(op: Op, patterns: Sequence[str]) -> bool:
    return any(op.label == pattern or fnmatchcase(op.label, pattern) for pattern in patterns)


@dataclass(frozen=True, eq=False)
class Survey:
    """What a model holds for this path.

    Attributes:
        targets: what can be measured.
        skipped: the others.
        notes: what the user should know, a line each.
        has_steps: whether a difference in the last bit can become one of a whole step, as where values are quantised.
        whose: for messages: which model it is.
    """

    targets: tuple[Target, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    has_steps: bool = False
    whose: str = "the model"


def survey(graph: Graph, selection: Selection = ALL) -> Survey:
    """Finds what can be measured, of what is selected.

    Raises:
        CalibrationError: there is no BatchNormalization, none of some name, or one whose statistics are computed, or
            read by something else.
    """
    ops = [op for op in graph.ops() if batchnorm.is_batchnorm(op)]
    if not ops:
        raise CalibrationError(NO_BN)
    selection.check(ops)
    kept = [op for op in ops if selection.leaves_out(op)]
    others = [op for op in ops if op not in set(kept)]
    skipped = [Skipped(op.label, why) for op in others if (why := _unmeasurable(graph, op))]
    measured = [op for op in others if not _unmeasurable(graph, op)]
    if not others:
        raise CalibrationError("every BatchNormalization is kept by its name: there is nothing to calibrate")
    if not measured:
        raise CalibrationError(f"no BatchNormalization can be measured: {skipped[0].name} {skipped[0].why}")
    skipped += [Skipped(op.label, "is kept by its name", is_asked=True) for op in kept]
    targets = tuple(_target(op) for op in measured)
    return Survey(targets, tuple(skipped), tuple(_notes(graph, others, kept)), any(map(_has_steps, graph.ops())))


def survey_of(graph: Graph, targets: tuple[Target, ...], whose: str) -> Survey:
    """The survey of targets that are known already."""
    return Survey(targets, (), tuple(_notes(graph, [], [])), any(map(_has_steps, graph.ops())), whose)


def _unmeasurable(graph: Graph, op: Op) -> str:
    if op.scope is not graph.main:
        place = "a model-local function" if op.scope.is_function else "the body of an If, Loop or Scan"
        return f"is in {place}, where it may run any number of times"
    if None in [*map(op.input, (0, batchnorm.GAMMA, batchnorm.BETA)), *(op.outputs[:1] or [None])]:
        return "lacks an input, or its output"
    try:
        per_position = batchnorm.is_per_position(op)
        batchnorm.epsilon(op), batchnorm.is_training(op)
    except Refused as refused:
        return f"cannot be read: {Refusal(refused.reason, refused.facts)}"
    return "has spatial=0: statistics per position" if per_position else ""


def shared(targets: Sequence[Target]) -> Iterator[str]:
    """A line for each group that reads the same statistics, as calls of one module do, with a target in it."""
    values = (target.op.input(batchnorm.VAR) for target in targets)
    for value in dict.fromkeys(value for value in values if value is not None):
        ops = [use.op for use in value.readers if batchnorm.is_batchnorm(use.op) and use.index == batchnorm.VAR]
        if len(ops) > 1:
            yield f"{', '.join(op.label for op in ops)} shared the statistics {value.name!r}: each has its own now"


def _target(op: Op) -> Target:
    for value in op.outputs[1:]:
        if value is not None and value.readers:
            reader = next(iter(value.readers)).op.label
            raise CalibrationError(f"{op.label}: its running statistics {value.name!r} are read by {reader}")
    if op.input(batchnorm.MEAN) is None or op.input(batchnorm.VAR) is None:
        gamma = _constant(op, batchnorm.GAMMA)
        return Target(
            op, op.label, np.zeros(gamma.size), np.ones(gamma.size), _dtype(op, batchnorm.GAMMA), is_known=False
        )
    mean, var = _constant(op, batchnorm.MEAN), _constant(op, batchnorm.VAR)
    if mean.shape != var.shape or mean.ndim != 1:
        raise CalibrationError(f"{op.label}: mean has shape {mean.shape}, variance {var.shape}; both have to be [C]")
    return Target(op, op.label, mean, var, _dtype(op, batchnorm.VAR))


def _constant(op: Op, index: int) -> FloatArray:
    what = "its parameters are computed" if index == batchnorm.GAMMA else "its statistics are computed"
    try:
        return op.constant(index).float64()
    except Refused as refused:
        raise CalibrationError(f"{op.label}: {what}: {Refusal(refused.reason, refused.facts)}") from refused


def _dtype(op: Op, index: int) -> np.dtype[Any]:
    return op.constant(index).dtype


def _notes(graph: Graph, ops: list[Op], kept: list[Op]) -> list[str]:
    notes = []
    if training := [op.label for op in kept if is_training(op)]:
        notes.append(f"{', '.join(training)} kept in training mode: what the others meet depends on the batch size")
    if random := sorted({op.type for op in graph.ops() if op.type in RANDOM}):
        notes.append(f"random operators remain ({', '.join(random)}): two runs will not agree")
    if any(drops(op) for op in graph.ops()):
        notes.append("Dropout was exported in training mode; it is in inference mode now")
    if silent := [op for op in ops if not is_training(op) and _was_training(op)]:
        notes.append(
            f"PyTorch's exporter made inference nodes of {len(silent)} BatchNormalizations in training mode without a "
            "word: until now the model did not compute what it did in PyTorch"
        )
    return notes


def is_training(op: Op) -> bool:
    """Whether a BatchNormalization is in training mode, as far as can be told."""
    try:
        return batchnorm.is_training(op)
    except Refused:
        return False


def _has_steps(op: Op) -> bool:
    if op.type == "Cast":  # from a floating-point type to another is none, nor is what computes a shape
        try:
            made, given = op.graph.dtype(op.output), op.graph.dtype(op.data(0))
        except Refused:  # it has no input, or nothing reads it
            return False
        if made is None or given is None or op.graph.constant(op.output) is not None:
            return False
        return given.kind == "f" and made.kind in "iu"
    return "Quantize" in op.type or "QLinear" in op.type or op.type in _STEPS


def drops(op: Op) -> bool:
    """Whether it is a Dropout that may drop something."""
    return op.type == "Dropout" and op.input(_DROPOUT_MODE_INPUT) is not None


def stop_dropping(op: Op) -> list[str]:
    """The inputs of a Dropout in inference mode: without `training_mode`."""
    return list(op.node.input)[:_DROPOUT_MODE_INPUT]


def _was_training(op: Op) -> bool:
    return any(_TORCH_TRAINING_BN in entry.value for entry in op.node.metadata_props)
