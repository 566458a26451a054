"""Patterns that runtimes compute as one operator, as long as every node and constant of them is in its place.

A Gelu, a LayerNormalization or the scale of an attention that is spelt out in single operators holds affines that
could go into a neighbour's weight. But a runtime then no longer knows the pattern, and runs five operators where it
ran one. The forms are those that ONNX Runtime looks for when it loads a model (`gelu_fusion`, `fast_gelu_fusion`,
`quick_gelu_fusion`, `layer_norm_fusion`, `matmul_scale_fusion`), and its tool for transformers and onnxscript's fusions
before that. A HardSwish that is spelt out is not among them, and no affine passes the Sigmoid of a Swish.

Each reader starts at the operator that gives a pattern away, and is the formula in its docstring, read backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isclose, pi, prod, sqrt

import numpy as np

from bnfold.graph import Graph, Op, Value, is_float
from bnfold.ops import Assign, Detach, Edit, Moved
from bnfold.reasons import Reason, Refused

_NEARLY = 1e-3  # how close a number is to the one in the formula: exporters write 0.7071 and 0.707106781
_CUBIC = 0.044715
_MAX_POLYNOMIAL = 8  # operators of the argument of a Tanh


@dataclass(frozen=True, eq=False)
class Pattern:
    """Operators that runtimes compute as one.

    Attributes:
        name: The one.
        fixed: Stay exactly as they are.
        flexible: Stay, but what they multiply with or add may take other values of the same shape.
    """

    name: str
    fixed: tuple[Op, ...]
    flexible: tuple[Op, ...] = ()


class Patterns:
    """The patterns of a graph, found before anything is folded."""

    def __init__(self, graph: Graph | None = None, *, norms: bool = True) -> None:
        self._fixed: dict[Op, Pattern] = {}
        self._flexible: dict[Op, Pattern] = {}
        for op in graph.ops() if graph is not None else ():
            pattern = _pattern_at(op) if norms or op.type != "Sqrt" else None
            if pattern is not None:
                self._fixed |= dict.fromkeys(pattern.fixed, pattern)
                self._flexible |= dict.fromkeys(pattern.flexible, pattern)

    def refuse_member(self, op: Op) -> None:
        """Refuses to take an affine out of a pattern."""
        pattern = self._fixed.get(op) or self._flexible.get(op)
        if pattern is not None:
            raise Refused(Reason.FUSED_BY_RUNTIME, pattern=pattern.name)

    def refuse_broken(self, edits: Iterable[Edit]) -> None:
        """Refuses edits after which a pattern would not be known as one."""
        for edit in edits:
            if isinstance(edit, Moved):
                continue
            op = edit.add if isinstance(edit, Detach) else edit.op
            pattern = self._fixed.get(op) or self._flexible.get(op)
            if pattern is not None and not (op in pattern.flexible and _keeps_shape(edit)):
                raise Refused(Reason.FUSED_BY_RUNTIME, pattern=pattern.name)


def _keeps_shape(edit: Edit) -> bool:
    return isinstance(edit, Assign) and edit.constant.shape == edit.op.constant(edit.index).shape


def _pattern_at(op: Op) -> Pattern | None:
    read = _READERS.get(op.type)
    try:
        return read(op) if read is not None else None
    except Refused:  # a value that the pattern needs is not there
        return None


# --- x Φ(x), exactly and by a tanh ---------------------------------------------------------------------------


def _gelu(erf: Op) -> Pattern | None:
    """X · (1 + erf(x / √2)) · 0.5, multiplied in any order"""
    root = erf.data().producer
    x = _times(root, 1 / sqrt(2))
    one_plus = _plus(_only_reader(erf.output), erf.output, 1)
    if root is None or x is None or one_plus is None:
        return None
    halved = _halved_product(one_plus, x)
    return Pattern("Gelu", (root, one_plus, *halved)) if halved else None


def _fast_gelu(tanh: Op) -> Pattern | None:
    """X · (1 + tanh(√(2/π) (x + 0.044715 x³))) · 0.5, multiplied in any order"""
    one_plus = _plus(_only_reader(tanh.output), tanh.output, 1)
    if one_plus is None:
        return None
    inner, leaves = _polynomial(tanh.data())
    for x in leaves:
        halved = _halved_product(one_plus, x)
        if halved and leaves == {x} and any(_is_cubic_factor(op) for op in inner):
            return Pattern("FastGelu", (one_plus, *inner, *halved))
    return None


def _quick_gelu(sigmoid: Op) -> Pattern | None:
    """X · σ(α x)"""
    factor = sigmoid.data().producer
    product = _only_reader(sigmoid.output)
    if factor is None or factor.type != "Mul" or product is None or _only_reader(factor.output) is not sigmoid:
        return None
    x = next((factor.data(1 - index) for index in (0, 1) if _number(factor, index) is not None), None)
    is_whole = x is not None and _multiplies(product, sigmoid.output, x)
    return Pattern("QuickGelu", (factor, product)) if is_whole else None


def _halved_product(factor: Op, x: Value) -> tuple[Op, ...]:
    """The Muls that make 0.5 · x · factor, in whatever order; none if that is not what is made."""
    reader = _only_reader(factor.output)
    if (half := _times(reader, 0.5)) is factor.output and reader is not None:
        product = _only_reader(reader.output)
        return (reader, product) if product is not None and _multiplies(product, reader.output, x) else ()
    if reader is None or reader.type != "Mul" or half is not None:
        return ()
    other = reader.data(1 - _index_of(reader, factor.output))
    if other is x:
        last = _only_reader(reader.output)
        return (reader, last) if last is not None and _times(last, 0.5) is reader.output else ()
    first = other.producer
    return (reader, first) if first is not None and _times(first, 0.5) is x else ()


def _polynomial(value: Value) -> tuple[list[Op], set[Value]]:
    """The sums, products and powers that make a value, and the values they are made of."""
    ops: list[Op] = []
    leaves: set[Value] = set()
    pending = [value]
    while pending:
        value = pending.pop()
        op = value.producer
        if op is None or op.type not in ("Mul", "Add", "Pow") or len(value.readers) > 1 or len(ops) == _MAX_POLYNOMIAL:
            leaves.add(value)
            continue
        ops.append(op)
        pending += [operand for operand in map(op.data, (0, 1)) if op.graph.constant(operand) is None]
    return ops, leaves


def _is_cubic_factor(op: Op) -> bool:
    return any(_times(op, factor) is not None for factor in (_CUBIC, _CUBIC * sqrt(2 / pi)))


# --- normalizations ------------------------------------------------------------------------------------------


def _normalization(root: Op) -> Pattern | None:
    """X / √(mean(d²) + ε) · scale [+ bias], of x or, in its place, of x - mean(x)"""
    epsilon = root.data().producer
    mean = _constant_sum(epsilon)
    squares = _reduced(mean)
    square = squares.producer if squares is not None else None
    d = _squared(square)
    if epsilon is None or mean is None or mean.producer is None or square is None or d is None:
        return None
    quotient = _quotient(root, d)
    if not quotient:
        return None
    centred = _centred(d)
    scale = _after(quotient[-1], "Mul")
    bias = _after(scale[-1], "Add") if scale else ()
    if not scale:
        return None
    name = "LayerNormalization" if centred and bias else "SimplifiedLayerNormalization"
    fixed = (root, epsilon, mean.producer, square, *quotient, *centred, *scale[:-1], *bias[:-1])
    return Pattern(name, fixed, (scale[-1], *bias[-1:]))


def _constant_sum(op: Op | None) -> Value | None:
    """What an Add adds a number to."""
    if op is None or op.type != "Add":
        return None
    return next((op.data(1 - index) for index in (0, 1) if _number(op, index) is not None), None)


def _reduced(mean: Value | None) -> Value | None:
    op = None if mean is None else mean.producer
    return op.data() if op is not None and op.type == "ReduceMean" else None


def _squared(op: Op | None) -> Value | None:
    """What an operator squares: Pow(d, 2) or d · d."""
    if op is None or op.type not in ("Pow", "Mul"):
        return None
    is_square = _number(op, 1) == 2 if op.type == "Pow" else op.data(0) is op.data(1)
    return op.data() if is_square else None


def _quotient(root: Op, d: Value) -> tuple[Op, ...]:
    """The operators that divide d by the root, directly or by its reciprocal."""
    reader = _only_reader(root.output)
    if reader is None:
        return ()
    if reader.type == "Div" and reader.data(1) is root.output and _is_same(reader.data(0), d):
        return (reader,)
    is_inverse = reader.type == "Reciprocal" or (reader.type == "Div" and _number(reader, 0) == 1)
    product = _only_reader(reader.output) if is_inverse else None
    return (reader, product) if product is not None and _multiplies(product, reader.output, d) else ()


def _is_same(value: Value, d: Value) -> bool:
    """Whether a value is d, or the same difference once more: older PyTorch subtracted the mean twice."""
    op, other = value.producer, d.producer
    twice = op is not None and other is not None and op.type == other.type == "Sub"
    return value is d or (twice and op.inputs == other.inputs)  # type: ignore[union-attr]  # neither is None


def _centred(d: Value) -> tuple[Op, ...]:
    """The operators of x - mean(x), if that is what d is."""
    op = d.producer
    if op is None or op.type != "Sub" or op.graph.constant(op.data(1)) is not None:
        return ()
    mean = op.data(1).producer
    return (op, mean) if mean is not None and mean.type == "ReduceMean" and mean.data() is op.data(0) else ()


def _after(op: Op, op_type: str) -> tuple[Op, ...]:
    """The Mul or Add behind an operator whose constant is a vector; a Cast may stand between."""
    reader = _only_reader(op.output)
    before: tuple[Op, ...] = ()
    if reader is not None and reader.type == "Cast":
        before, op = (reader,), reader
        reader = _only_reader(op.output)
    if reader is None or reader.type != op_type:
        return ()
    constant = op.graph.constant(reader.data(1 - _index_of(reader, op.output)))
    return (*before, reader) if constant is not None and len(constant.shape) == 1 else ()


# --- attention -----------------------------------------------------------------------------------------------


def _scaled_product(matmul: Op) -> Pattern | None:
    """α · (q s) (k s): numbers before and behind a product of two computed matrices"""
    operands = [matmul.data(0), matmul.data(1)]
    if any(matmul.graph.constant(operand) is not None for operand in operands):
        return None
    scales = [operand.producer for operand in operands if _only_reader(operand) is matmul]
    found = tuple(op for op in (*scales, _only_reader(matmul.output)) if op is not None and _is_number_times(op))
    return Pattern("FusedMatMul", found) if found else None


def _is_number_times(op: Op) -> bool:
    return (op.type == "Mul" and any(_number(op, index) is not None for index in (0, 1))) or (
        op.type == "Div" and _number(op, 1) is not None
    )


# --- what formulas are made of -------------------------------------------------------------------------------


def _only_reader(value: Value) -> Op | None:
    """The one operator that reads a value, if nothing else does."""
    if value.is_output or len(value.readers) != 1:
        return None
    return next(iter(value.readers)).op


def _index_of(op: Op, value: Value) -> int:
    return op.inputs.index(value)


def _number(op: Op, index: int) -> float | None:
    """The constant operand at an index, if it is a single number."""
    constant = op.graph.constant(op.data(index))
    if constant is None or prod(constant.shape) != 1 or not (is_float(constant.dtype) or op.type == "Pow"):
        return None
    return float(np.asarray(constant.array(), np.float64).reshape(()))


def _times(op: Op | None, factor: float) -> Value | None:
    """The value that an operator multiplies with (about) that number."""
    if op is None or op.type not in ("Mul", "Div"):
        return None
    for index in (0, 1) if op.type == "Mul" else (1,):
        number = _number(op, index)
        if number and isclose(number if op.type == "Mul" else 1 / number, factor, rel_tol=_NEARLY):
            return op.data(1 - index)
    return None


def _plus(op: Op | None, value: Value, addend: float) -> Op | None:
    """The operator, if it adds that number to the value."""
    if op is None or op.type != "Add":
        return None
    return op if _number(op, 1 - _index_of(op, value)) == addend else None


def _multiplies(op: Op, left: Value, right: Value) -> bool:
    return op.type == "Mul" and {op.data(0), op.data(1)} == {left, right}


_READERS: dict[str, Callable[[Op], Pattern | None]] = {
    "Erf": _gelu,
    "Tanh": _fast_gelu,
    "Sigmoid": _quick_gelu,
    "Sqrt": _normalization,
    "MatMul": _scaled_product,
}
