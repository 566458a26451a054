"""Einsum: a sum of products over labelled axes. A factor of one label may stand at any operand that has the label.

A scale along a label of the result is one along that label of an operand, as it is not summed; and a scale along a
label of one operand is one of any other operand that has the label, summed or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.affine import Affine, FloatArray
from bnfold.graph import Op
from bnfold.ops.rule import (
    AddBehind,
    Assign,
    Edit,
    Edits,
    OpRule,
    Step,
    operands_type,
    refuse_rank_other_than,
    refuse_shift,
)
from bnfold.ops.weights import Exact, Scaled
from bnfold.reasons import Reason, Refused


@dataclass(frozen=True)
class Equation:
    """The labels of each operand and of the result, one letter for each axis."""

    operands: tuple[str, ...]
    result: str

    @classmethod
    def of(cls, op: Op) -> Equation:
        """The equation of an Einsum; the result of one without an arrow has every label that occurs once, sorted.

        Raises:
            Refused: it has an ellipsis, or a label twice in one term.
        """
        text = op.attribute("equation", b"").decode().replace(" ", "")
        left, arrow, result = text.partition("->")
        operands = tuple(left.split(","))
        if not arrow:
            result = "".join(sorted(label for label in set(left) - {","} if left.count(label) == 1))
        for term in (*operands, result):
            if not all(label.isalpha() for label in term) or len(set(term)) != len(term):
                raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"the term {term!r} of {text!r}")
        if len(operands) != len(op.inputs) or not set(result) <= set(left):
            raise Refused(Reason.MALFORMED, op_type=op.type, detail=text)
        return cls(operands, result)


def einsum_absorbs_output(op: Op, affine: Affine) -> Edits:
    """A(Σ x w) = Σ x (s w) + t, the shift in an Add behind it"""
    equation = Equation.of(op)
    refuse_rank_other_than(op, affine, len(equation.result))
    edits = _into_a_constant(op, equation, affine.scale, equation.result)
    if affine.has_shift:
        edits.append(AddBehind(op, Exact(affine.shift, operands_type(op))))
    return edits


def einsum_absorbs_input(op: Op, index: int, affine: Affine) -> Edits:
    """Σ A(x) w = Σ x (s w) + Σ t w, the shift in an Add behind it"""
    equation = Equation.of(op)
    term = equation.operands[index]
    refuse_rank_other_than(op, affine, len(term))
    edits = _into_a_constant(op, equation, affine.scale, term, besides=index)
    if affine.has_shift:
        edits.append(AddBehind(op, Exact(_sum_of_shifts(op, equation, index, affine.shift), operands_type(op))))
    return edits


def einsum_lifts(op: Op, output: int, affine: Affine) -> Sequence[Step]:
    """A(Σ x y) = Σ (s x) y, or Σ x (s y)"""
    equation = Equation.of(op)
    refuse_rank_other_than(op, affine, len(equation.result))
    refuse_shift(op, affine)
    steps = [
        Step({index: _scaling(_moved(affine.scale, equation.result, term))})
        for index, term in enumerate(equation.operands)
        if _has_labels(affine.scale, equation.result, term) and op.graph.constant(op.data(index)) is None
    ]
    return steps or _refuse_labels(op, affine)


def einsum_sinks(op: Op, index: int, affine: Affine) -> Sequence[Step]:
    """Σ A(x) y = s Σ x y along labels that are not summed"""
    equation = Equation.of(op)
    term = equation.operands[index]
    refuse_rank_other_than(op, affine, len(term))
    refuse_shift(op, affine)
    if not _has_labels(affine.scale, term, equation.result):
        _refuse_labels(op, affine)
    return [Step({0: _scaling(_moved(affine.scale, term, equation.result))})]


# --- the scale -----------------------------------------------------------------------------------------------


def _into_a_constant(
    op: Op, equation: Equation, scale: FloatArray, labels: str, besides: int | None = None
) -> list[Edit]:
    """The first constant operand that has the labels along which the scale varies, scaled."""
    if (scale == 1).all():
        return []
    refused = Refused(Reason.WRONG_AXIS, axes=labels, op_type=op.type, expected=",".join(equation.operands))
    for index, term in enumerate(equation.operands):
        if index == besides or not _has_labels(scale, labels, term):
            continue
        constant = op.graph.constant(op.data(index))
        if constant is None:
            refused = Refused(Reason.NOT_CONSTANT, value=op.data(index).name)
            continue
        factor = _moved(scale, labels, term)
        if len(constant.shape) != len(term) or not _fits(factor.shape, constant.shape):
            raise Refused(Reason.WRONG_SIZE, value=op.data(index).name, size=constant.shape, expected=factor.shape)
        return [Assign(op, index, Scaled(constant, factor))]
    raise refused


def _fits(factor: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return all(size in (1, own) for size, own in zip(factor, shape, strict=True))


def _has_labels(scale: FloatArray, labels: str, term: str) -> bool:
    return all(size == 1 or label in term for label, size in zip(labels, scale.shape, strict=True))


def _moved(array: FloatArray, labels: str, term: str) -> FloatArray:
    """An array with an axis for each label as one with an axis for each letter of the term.

    Axes of labels that the term lacks have size 1.
    """
    shared = [label for label in term if label in labels]
    lacking = [label for label in labels if label not in term]
    ordered = array.transpose([labels.index(label) for label in (*lacking, *shared)])
    sizes = dict(zip(labels, array.shape, strict=True))
    return ordered.reshape([sizes.get(label, 1) for label in term])


def _scaling(scale: FloatArray) -> Affine:
    return Affine(scale, np.zeros((1,) * scale.ndim))


def _refuse_labels(op: Op, affine: Affine) -> Sequence[Step]:
    raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected="labels that stay")


# --- the shift -----------------------------------------------------------------------------------------------


def _sum_of_shifts(op: Op, equation: Equation, index: int, shift: FloatArray) -> FloatArray:
    """Σ t w, of size 1 along labels that only x has; where those are summed, t counts as often as they are long."""
    if len(equation.operands) != 2:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="a shift and more than two operands")
    weight = op.constant(1 - index).float64()
    term, weight_term = equation.operands[index], equation.operands[1 - index]
    sizes = dict(zip(weight_term, weight.shape, strict=True))
    count = 1
    for label, size, own in zip(term, op.shape(index), shift.shape, strict=True):
        if label in weight_term:
            if (size != sizes[label] and (isinstance(size, int) or sizes[label] == 1)) or own not in (1, sizes[label]):
                raise Refused(Reason.WRONG_SIZE, value=op.data(1 - index).name, size=sizes[label], expected=size)
            continue
        sizes[label] = own
        if own == 1 and label not in equation.result:
            if not isinstance(size, int):
                raise Refused(Reason.SHAPE_UNKNOWN, value=op.data(index).name)
            count *= size
    whole = np.broadcast_to(shift, [sizes[label] for label in term])
    return np.asarray(count * np.einsum(f"{term},{weight_term}->{equation.result}", whole, weight))


RULES: dict[str, OpRule] = {
    "Einsum": OpRule(
        absorb_output=einsum_absorbs_output,
        absorb_input=einsum_absorbs_input,
        lift=einsum_lifts,
        sink=einsum_sinks,
    ),
}
