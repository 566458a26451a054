"""For every operator, how far its result may be off if its inputs are: a rule of a few lines each.

Whatever the inputs are within their errors, and however these hang together, the result stays within the bound. Only
where rounded weights enter a sum, each rounded on its own, the bound is statistical: see `K`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bnfold.affine import FloatArray
from bnfold.graph import Op
from bnfold.verification.float64 import choices, windows
from bnfold.verification.float64.ball import Ball
from bnfold.verification.float64.carried import Call, K, Num, Rule, distance, noise, tried
from bnfold.verification.float64.kernel import Array, NotComputed, channels
from bnfold.verification.float64.kernels import epsilon, is_training, quantized

_MOST = 600.0  # as an exponent: exp of it is finite, and so are sums of that
_SQUARES = 1e-150  # below it, squares underflow
_LAYOUT = frozenset({"Cast", "CastLike", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def carried(call: Call) -> list[Num]:
    """The results of a call with their errors.

    Raises:
        NotComputed: A result that is off is no array.
    """
    errors: Sequence[Any] = [None] * len(call.outputs)
    if any(num.error is not None for num in call.inputs) or (call.unit and call.op.type in _SUMS):
        errors = _bounds(call)
    if call.unit:
        errors = [_with_noise(y, error, call.unit) for y, error in zip(call.outputs, errors, strict=True)]
    # what moves every entry to one place leaves each rounded on its own
    is_fresh = call.op.type in _LAYOUT and call.inputs[0].fresh
    return [Num(y, error, is_fresh) for y, error in zip(call.outputs, errors, strict=True)]


def _bounds(call: Call) -> list[FloatArray | None]:
    if not all(y is None or isinstance(y, np.ndarray | np.generic) for y in call.outputs):
        raise NotComputed("it makes no array of numbers that are off")
    try:
        errors = RULES.get(call.op.type, tried)(call)
    except NotComputed:  # a form of the operator for which the rule is none
        errors = tried(call)
    if len(errors) < sum(y is not None for y in call.outputs):
        errors = tried(call)
    return [None if y is None else _bound(e, np.asarray(y)) for e, y in zip(errors, call.outputs, strict=False)]


def _bound(error: Any, y: Array) -> FloatArray | None:
    """As an array, of integers in whole steps; None if nothing is off."""
    size = np.abs(np.asarray(error, np.float64))
    size = np.ceil(size) if y.dtype.kind in "iu" else size
    largest = size.max(initial=0.0)
    if not largest:
        return None
    return np.broadcast_to(np.where(np.isnan(size), np.inf, size) if np.isnan(largest) else size, y.shape)


def _with_noise(y: Any, error: FloatArray | None, unit: float) -> FloatArray | None:
    if not isinstance(y, np.ndarray) or y.dtype != np.float64:
        return error
    return noise(y, unit) if error is None else error + noise(y, unit)


def moves(*places: int, terms: float = 0.0) -> Rule:
    """What moves, adds up or takes a norm of inputs does so with their errors; of all inputs if none is named."""

    def rule(call: Call) -> Sequence[Any]:
        chosen = [place for place in places or range(len(call.inputs)) if call.value(place) is not None]
        if any(call.is_off(place) for place in range(len(call.inputs)) if place not in chosen):
            return tried(call)
        inputs = [num.value for num in call.inputs]
        for place in chosen:
            inputs[place] = call.error(place) + terms * call.unit * np.abs(inputs[place])
        return call.run(inputs)

    return rule


_sums = moves(0, terms=1.0)


def ends(call: Call) -> Sequence[Any]:
    """What never falls, or never rises, is furthest off at the ends."""
    results = [call.run(call.shifted(sign)) for sign in (np.ones_like, lambda e: -np.ones_like(e))]
    return [
        None if y is None else np.maximum(*(distance(y, result[place]) for result in results))
        for place, y in enumerate(call.outputs)
    ]


def slope(most: float) -> Rule:
    """|f(x') - f(x)|  <=  most |x' - x|, of a sum of inputs if there are several"""
    return lambda call: [most * sum(map(call.error, range(len(call.inputs))))]


def _leaky(default: float) -> Rule:
    """1 above zero, and below it no steeper than alpha"""
    return lambda call: [max(1.0, abs(call.op.attribute("alpha", default))) * call.error(0)]


def formula(function: Callable[..., Ball]) -> Rule:
    """What the operator computes, with numbers that may be off; the function gets the operator and its inputs."""

    def rule(call: Call) -> Sequence[Any]:
        balls = (None if num.value is None else _ball(num, call.unit) for num in call.inputs)
        return [function(call.op, *balls).e]

    return rule


def _ball(num: Num, unit: float) -> Ball:
    return Ball(num.value, 0.0 if num.error is None else num.error, unit)


def bilinear(
    multiply: Callable[[Call, Any, Any], Any],
    factor: Callable[[Op], float] = lambda op: 1.0,
    terms: Callable[[Call], float] = lambda call: math.inf,
) -> Rule:
    """(a + d)(b + e) - ab  =  d (b + e) + a e, summed up over no more than so many terms; see `_plus`"""

    def rule(call: Call) -> Sequence[Any]:
        scale = abs(factor(call.op))

        def product(place: int, p: Any, q: Any) -> FloatArray:
            return np.asarray(np.abs(multiply(call, *((p, q) if place == 0 else (q, p)))))

        def entering(place: int, other: FloatArray) -> FloatArray:
            """Sum of e |x|; of what was rounded on its own K standard deviations will do, where e/√3 is one of an e"""
            error = call.error(place)
            worst = product(place, error, other)
            if not call.inputs[place].fresh or terms(call) <= K**2 / 3:  # then it is less, by Cauchy and Schwarz
                return worst
            usual = K * np.sqrt(scale * product(place, error**2, other**2) / 3)
            return np.where(usual > _SQUARES, np.minimum(worst, usual), worst)

        a, b = (call.inputs[place].value for place in range(2))
        parts = [entering(1, np.abs(a))] if call.is_off(1) else []
        parts += [entering(0, np.abs(b) + call.error(1) if call.is_off(1) else np.abs(b))] if call.is_off(0) else []
        parts += [product(0, call.unit * np.abs(a), np.abs(b))] if call.unit else []
        return [sum(parts)]

    return rule


def _run(call: Call, p: Any, q: Any) -> Any:
    return call.run([p, q])[0]


def _plus(rule: Rule, added: Callable[[Call], Any]) -> Rule:
    """With the error of a third input, which is added."""
    return lambda call: [rule(call)[0] + (added(call) if call.is_off(2) else 0.0)]


_conv = _plus(
    bilinear(
        lambda call, p, q: windows.conv(call.op, [p, q])[0],
        terms=lambda call: math.prod(call.value(1).shape[1:]),
    ),
    lambda call: channels(call.error(2), call.outputs[0].ndim),
)


def _fused_conv(call: Call) -> Sequence[Any]:
    """act(conv(x) + z) is monotone in z"""
    if call.is_off(3):
        return tried(call)
    error = _conv(call)[0]
    first = [call.value(place) for place in range(3)]
    z = 0.0 if call.value(3) is None else call.value(3)
    return [np.maximum(*(distance(call.outputs[0], call.run([*first, z + d])[0]) for d in (-error, error)))]


def _scattered(call: Call) -> Sequence[Any]:
    """Of the smallest number as of the largest one, whichever may be off most"""
    reduction = call.op.attribute("reduction")
    if reduction == b"mul" or call.is_off(1):
        return tried(call)
    return (ends if reduction == b"min" else moves(0, 2))(call)


def _but_for_own(rule: Rule) -> Rule:
    """Of what an operator makes of its first input: a number that it writes beside it of its own is not off."""

    def bound(call: Call) -> Sequence[Any]:
        return [rule(call)[0] - call.run([np.zeros_like(call.value(0)), *_rest(call)])[0]]

    return bound


def _padded(call: Call) -> Sequence[Any]:
    """What is written beside the input is an input as well, but in old versions"""
    return (_but_for_own(moves(0)) if call.value(2) is None else moves(0, 2))(call)


def _power(op: Op, x: Ball, p: Ball) -> Ball:
    """|p| times the larger |x|^(p-1) of both ends, by the mean value theorem; x^(1/2) has an own bound"""
    del op
    if np.any(p.e):
        raise NotComputed("a power that is off")
    if np.all(p.x == 0.5):
        return x.root()
    low, high = np.maximum(np.abs(x.x) - x.e, 0.0), np.abs(x.x) + x.e
    steepest = np.abs(p.x) * np.where(p.x >= 1, high ** (p.x - 1), low ** (p.x - 1))
    return Ball(x.x, np.where(x.e > 0, steepest * x.e, 0.0))


def _prelu(op: Op, x: Ball, slopes: Ball) -> Ball:
    """Above zero as steep as 1, below as the slope, which counts there alone"""
    del op
    below = np.where(x.x - x.e < 0, (np.abs(x.x) + x.e) * slopes.e, 0.0)
    return Ball(x.x, np.maximum(1.0, np.abs(slopes.x)) * x.e + below)


def _batch_normalization(op: Op, x: Ball, s: Ball, t: Ball, m: Ball, v: Ball) -> Ball:
    if is_training(op):
        raise NotComputed("statistics of the batch")
    s, t, m, v = (ball.along_channels(x.x.ndim) for ball in (s, t, m, v))
    return (x - m) / (v + Ball(epsilon(op))).root() * s + t


def _normalized(op: Op, x: Ball, axes: tuple[int, ...]) -> Ball:
    centred = x - x.mean(axes)
    return centred / ((centred * centred).mean(axes) + Ball(epsilon(op))).root()


def _layer_normalization(op: Op, x: Ball, s: Ball, t: Ball | None = None) -> Ball:
    y = _normalized(op, x, tuple(range(op.attribute("axis", -1) % x.x.ndim, x.x.ndim))) * s
    return y if t is None else y + t


def _instance_normalization(op: Op, x: Ball, s: Ball, t: Ball) -> Ball:
    s, t = (ball.along_channels(x.x.ndim) for ball in (s, t))
    return _normalized(op, x, tuple(range(2, x.x.ndim))) * s + t


def _group_normalization(op: Op, x: Ball, s: Ball, t: Ball) -> Ball:
    shape, groups = x.x.shape, op.attribute("num_groups")
    y = _normalized(op, x.reshaped((shape[0], groups, -1)), (2,)).reshaped(shape)
    if op.opset < 21:  # one scale for each group
        s, t = (ball.repeated(shape[1] // groups) for ball in (s, t))
    return y * s.along_channels(len(shape)) + t.along_channels(len(shape))


def _rms_normalization(op: Op, x: Ball, s: Ball) -> Ball:
    axes = tuple(range(op.attribute("axis", -1) % x.x.ndim, x.x.ndim))
    return x / ((x * x).mean(axes) + Ball(epsilon(op))).root() * s


def _softmax(call: Call) -> Sequence[Any]:
    """exp(x) / (exp(x) + the others): most if x is high and the others are low, least the other way round"""
    x, e, axes = _along(call)
    x = x - np.max(x, axis=axes, keepdims=True)
    up, low = (np.exp(np.minimum(x + sign * e, _MOST)) for sign in (1, -1))
    others = [np.maximum(np.sum(exp, axis=axes, keepdims=True) - exp, 0.0) for exp in (low, up)]
    y = call.outputs[0]
    return [np.maximum(up / (up + others[0]) - y, y - low / (low + others[1]))]


def _log_softmax(call: Call) -> Sequence[Any]:
    """The logarithm of the sum is off by no more than log(sum of softmax(x) exp(e))"""
    x, e, axes = _along(call)
    size = np.exp(np.minimum(call.outputs[0] + e, _MOST)).sum(axis=axes, keepdims=True)
    del x
    return [e + np.log(np.maximum(size, 1.0))]


def _along(call: Call) -> tuple[FloatArray, FloatArray, tuple[int, ...]]:
    x, is_new = call.value(0), call.op.opset >= 13
    axis = call.op.attribute("axis", -1 if is_new else 1) % max(x.ndim, 1)
    return x, call.error(0), (axis,) if is_new else tuple(range(axis, x.ndim))


def _resize(call: Call) -> Sequence[Any]:
    """A sum; factors that are off make the result another, but none of another size: that is compared elsewhere."""
    if call.op.attribute("mode") == b"cubic":
        return tried(call)
    alone = replace(call, inputs=[call.inputs[0], *(num._replace(error=None) for num in call.inputs[1:])])
    error = _but_for_own(_sums)(alone)[0]
    factors = replace(call, inputs=[call.inputs[0]._replace(error=None), *call.inputs[1:]])
    ends_ = [call.run(factors.shifted(sign))[0] for sign in (np.ones_like, lambda e: -np.ones_like(e))]
    return [error + sum(distance(call.outputs[0], end) for end in ends_ if end.shape == call.outputs[0].shape)]


def _cast(call: Call) -> Sequence[Any]:
    """Real numbers stay; others may come out a step or a truth off"""
    y, x, e = call.outputs[0], call.value(0), call.error(0)
    if y.dtype == np.bool_:
        return [(e > 0) & (np.abs(x) <= e)]
    return [e] if y.dtype == np.float64 else ends(call)


def _rest(call: Call) -> list[Any]:
    return [num.value for num in call.inputs[1:]]


def _flips(call: Call) -> Sequence[Any]:
    """Which comparisons may turn out otherwise"""
    (a, b), room = (np.asarray(num.value, np.float64) for num in call.inputs), call.error(0) + call.error(1)
    return [(room > 0) & (np.abs(a - b) <= room)]


def _logic(call: Call) -> Sequence[Any]:
    return [sum(call.error(place) > 0 for place in range(len(call.inputs))) > 0]


def _where(call: Call) -> Sequence[Any]:
    """The error of what is chosen; where the choice may be another, the distance of the two as well"""
    chosen, a, b = (num.value for num in call.inputs)
    unsure, *errors = (call.error(place) for place in range(3))
    either = distance(*np.broadcast_arrays(a, b)) + sum(errors) if a.dtype.kind in "biuf" else np.float64(np.inf)
    return [np.where(unsure > 0, either, np.where(chosen, *errors))]


def _quantize(call: Call) -> Sequence[Any]:
    """A rounding in x; by its scale it is not monotone"""
    return (tried if call.is_off(1) or call.is_off(2) else ends)(call)


def _dequantize(call: Call) -> Sequence[Any]:
    """(x - z) s"""
    x, s, z = quantized(call.op, [num.value for num in call.inputs])
    e, d, c = quantized(call.op, [call.error(place) for place in range(len(call.inputs))])
    return [((Ball(x.astype(np.float64), e) - Ball(z, c)) * Ball(s, d)).e]


def _sum_of_squares(call: Call) -> Sequence[Any]:
    """(|x| + e)² - x²"""
    x, rest = np.abs(call.value(0)), _rest(call)
    return [call.run([x + call.error(0), *rest])[0] - call.outputs[0]]


_MOVING = {
    **dict.fromkeys(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"), moves(0)),
    **dict.fromkeys(("Slice", "GatherND", "Split", "Expand", "Tile"), moves(0)),
    **dict.fromkeys(("Gather", "GatherElements"), choices.gathered(moves(0))),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth", "ReverseSequence", "Compress", "Trilu"), moves(0)),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool", "ReduceL1", "ReduceL2", "LpPool", "GlobalLpPool"), moves(0)),
    **dict.fromkeys(("ScatterElements", "ScatterND"), _scattered),
    "Dropout": lambda call: [call.error(0), 0.0],
    "Pad": _padded,
    "Concat": moves(),
    "MaxPool": lambda call: (tried if len(call.outputs) > 1 else moves(0))(call),
}
_SUMMING = {
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "ReduceSum", "ReduceMean", "CumSum", "Upsample"), _sums),
    "Resize": _resize,
    "Sum": moves(terms=1.0),
    "Mean": moves(terms=1.0),
}
_PRODUCTS = {
    "Conv": _conv,
    "ConvTranspose": _plus(bilinear(_run), lambda call: channels(call.error(2), call.outputs[0].ndim)),
    "MatMul": bilinear(_run),
    "com.microsoft::FusedMatMul": bilinear(_run, lambda op: op.attribute("alpha", 1.0)),
    "com.microsoft::FusedConv": _fused_conv,
    "Gemm": _plus(
        bilinear(_run, lambda op: op.attribute("alpha", 1.0)),
        lambda call: abs(call.op.attribute("beta", 1.0)) * call.error(2),
    ),
    "Einsum": lambda call: (bilinear(_run) if len(call.inputs) == 2 else tried)(call),
}
_FORMULAS = {
    "Add": formula(lambda op, a, b: a + b),
    "Sub": formula(lambda op, a, b: a - b),
    "Mul": formula(lambda op, a, b: a * b),
    "Div": formula(lambda op, a, b: a / b),
    "Reciprocal": formula(lambda op, a: Ball(np.ones(())) / a),
    "Sqrt": formula(lambda op, a: a.root()),
    "Pow": formula(_power),
    "PRelu": formula(_prelu),
    "BatchNormalization": formula(_batch_normalization),
    "LayerNormalization": formula(_layer_normalization),
    "InstanceNormalization": formula(_instance_normalization),
    "GroupNormalization": formula(_group_normalization),
    "RMSNormalization": formula(_rms_normalization),
    "SimplifiedLayerNormalization": formula(_rms_normalization),
}
RULES: dict[str, Rule] = {
    **_MOVING,
    **_SUMMING,
    **_PRODUCTS,
    **_FORMULAS,
    "Relu": lambda call: [np.clip(call.value(0) + call.error(0), 0.0, call.error(0))],
    **dict.fromkeys(("Sigmoid", "Tanh", "Exp", "Log", "Erf", "Softplus", "Softsign", "HardSigmoid"), ends),
    **dict.fromkeys(("Clip", "Selu", "Celu", "Floor", "Ceil", "Round", "Sign", "Atan", "Asinh", "Sinh"), ends),
    **dict.fromkeys(("Max", "Min", "ReduceMax", "ReduceMin", "ReduceLogSumExp", "ReduceLogSum"), ends),
    **dict.fromkeys(("Neg", "Abs", "Sin", "Cos"), slope(1.0)),
    **dict.fromkeys(("Gelu", "com.microsoft::Gelu", "com.microsoft::BiasGelu", "com.microsoft::FastGelu"), slope(1.13)),
    **dict.fromkeys(("com.microsoft::QuickGelu", "Swish", "Mish"), slope(1.1)),
    "HardSwish": slope(1.5),
    "LeakyRelu": _leaky(0.01),
    "Elu": _leaky(1.0),
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Cast": _cast,
    "CastLike": _cast,
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), _flips),
    **dict.fromkeys(("And", "Or", "Xor", "Not"), _logic),
    **dict.fromkeys(("Shape", "Size", "IsNaN", "IsInf"), lambda call: [np.zeros(())]),
    "Where": _where,
    **dict.fromkeys(("ArgMax", "ArgMin"), choices.winner),
    "Hardmax": choices.hardmax,
    "TopK": choices.top(ends),
    "OneHot": choices.one_hot,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "ReduceSumSquare": _sum_of_squares,
}
_SUMS = frozenset({*_SUMMING, *_PRODUCTS, *_FORMULAS}) - {"Add", "Sub", "Mul", "Div"}  # noise that exceeds the result's
_JUMPING = frozenset(
    {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "Where", "IsNaN", "IsInf"}
) | {"Floor", "Ceil", "Round", "Sign", "Cast", "CastLike", "QuantizeLinear"}
_JUMPING |= {"ArgMax", "ArgMin", "Hardmax", "TopK", "OneHot"}


def is_continuous(op: Op) -> bool:
    """Whether its result jumps nowhere: two of these that are alike nearly everywhere are so at ties as well."""
    return op.type in ("Constant", "ConstantOfShape") or (op.type in RULES and op.type not in _JUMPING)
