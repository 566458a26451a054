"""Operators that may be layers: what they compute, and where they have their weights and their bias."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod

from onnx import TensorProto

from bnfold.affine import FloatArray
from bnfold.calibration.reference.integers import OWN_BIAS, packing, real, unpacked
from bnfold.graph import Constant, Op, Use, Value

W_SCALE, W_ZERO_POINT = 4, 5  # of operators on integers
_ZERO_POINT_OF_SCALED = 3  # of those that are scaled behind


class Kind(Enum):
    """What a layer computes."""

    CONVOLUTION = "convolution"
    TRANSPOSED = "transposed convolution"
    DENSE = "matrix product"


@dataclass(frozen=True)
class Form:
    """Where an operator has its weights and its bias.

    Attributes:
        kind: of layer.
        weight: the input.
        bias: the input; None if it has none.
        result: of an operator on integers, the input that is the scale of its output; the zero point comes next.
        axis: of the channels in its output.
        is_scaled_behind: whether it gives integers, which a Mul behind it makes numbers of.
        is_packed: whether its weights are some bits each.
    """

    kind: Kind
    weight: int = 1
    bias: int | None = 2
    result: int | None = None
    axis: int = 1
    is_scaled_behind: bool = False
    is_packed: bool = False


FORMS = {
    "Conv": Form(Kind.CONVOLUTION),
    "QLinearConv": Form(Kind.CONVOLUTION, 3, 8, result=6),
    "ConvTranspose": Form(Kind.TRANSPOSED),
    "Gemm": Form(Kind.DENSE),
    "com.microsoft::QGemm": Form(Kind.DENSE, 3, 6, result=7),
    "MatMul": Form(Kind.DENSE, bias=None, axis=-1),
    "ConvInteger": Form(Kind.CONVOLUTION, bias=None, is_scaled_behind=True),
    "MatMulInteger": Form(Kind.DENSE, bias=None, axis=-1, is_scaled_behind=True),
    "com.microsoft::MatMulNBits": Form(Kind.DENSE, bias=None, axis=-1, is_packed=True),
}
UNKNOWN = frozenset(
    {"QLinearMatMul"}
    | {f"com.microsoft::{name}" for name in ("FusedConv", "FusedMatMul", "FusedGemm")}
    | {f"com.microsoft::{name}" for name in ("QLinearConv", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")}
)
"""Layers that nothing is corrected in."""
WITHOUT_BIAS = (
    "has no bias, and an Add would take it out of its integer kernel: quantize after ONNX Runtime's quant_pre_process, "
    "which makes one Gemm of a MatMul and its Add"
)


class Unfit(Exception):
    """Nothing can be corrected in a layer. Its text says why, in words that follow the layer's name."""


def shape_of(op: Op, form: Form) -> tuple[int, ...]:
    """Of the weights.

    Raises:
        Unfit: how they are packed is not known.
    """
    if form.is_packed:
        found = packing(op)
        if found is None or op.input(OWN_BIAS) is not None:
            raise Unfit("has weights that are packed or ordered in another way than ONNX Runtime's quantizer does it")
        return found.inner, found.outer
    return op.constant(form.weight).shape


def end_of(op: Op, form: Form) -> Op:
    """The node that makes the output of a layer.

    Raises:
        Unfit: what it makes of integers is not known.
    """
    if not form.is_scaled_behind:
        return op
    found = _scaling(op)
    if found is None or prod(found[1].shape) not in (1, shape_of(op, form)[weight_axis_of(op)]):
        raise Unfit("gives integers that are not cast and scaled as ONNX Runtime's quantizer does it")
    return found[0]


def group_of(op: Op) -> int:
    """Of a transposed convolution, which has a row of weights for the channels of a group only."""
    return int(op.attribute("group", 1)) if op.type == "ConvTranspose" else 1


def weight_axis_of(op: Op) -> int:
    """Of the channels in the weights."""
    if FORMS[op.type].kind is Kind.DENSE:
        return 0 if op.attribute("transB", 0) else 1
    return 1 if op.type == "ConvTranspose" else 0


def weights_of(op: Op, form: Form) -> FloatArray:
    """The weights as they count, float64."""
    if form.is_packed:
        how = packing(op)
        assert how is not None
        return unpacked(op, how)
    weights = op.constant(form.weight).float64()
    if form.is_scaled_behind:
        found = _scaling(op)
        assert found is not None
        return real(weights, found[1], op.optional_constant(_ZERO_POINT_OF_SCALED), weight_axis_of(op))
    if form.result is None:
        return weights
    return real(weights, op.constant(W_SCALE), op.optional_constant(W_ZERO_POINT), weight_axis_of(op))


def sole_reader(value: Value) -> Use | None:
    """The one place that reads a value, if there is but one, in the same graph."""
    if value.is_output or len(value.readers) != 1:
        return None
    (use,) = value.readers
    return use if use.op.scope is value.scope else None


def _scaling(op: Op) -> tuple[Op, Constant] | None:
    """The Mul behind an operator that gives int32, and the scale of its weights; None if it is used otherwise.

    ONNX Runtime's dynamic quantizer writes Cast, and Mul by x_scale * scale.
    """
    cast = sole_reader(op.output)
    if cast is None or cast.op.type != "Cast" or cast.op.attribute("to") != TensorProto.FLOAT:
        return None
    mul = sole_reader(cast.op.output)
    if mul is None or mul.op.type != "Mul" or len(mul.op.inputs) != 2:
        return None
    by = mul.op.data(1 - mul.index).producer
    if by is None or by.type != "Mul":
        return None
    constants = [c for value in by.inputs if value is not None and (c := op.graph.constant(value)) is not None]
    return (mul.op, constants[0]) if len(constants) == 1 else None
