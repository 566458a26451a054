"""Whatever a rule answers is true, for any affine; and for the right affine it does answer.

`models` holds one-operator models in many forms. For each, hypothesis draws affines of its result and of its input: a
rule may refuse, but what it does answer must compute the same function. The list in the second place of each entry
says which abilities must have answered for one affine at least, so that a rule that refuses everything fails too.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers import affines, few
from hypothesis import given
from onnx import ModelProto
from ops.helpers import (
    absorb_input,
    absorb_output,
    an_affine,
    assert_absorbs_input,
    assert_absorbs_output,
    assert_lifts,
    assert_sinks,
    lift,
    one_op,
    only_op,
    run,
    sink,
)
from ops.helpers import feeds_of as inputs_for

from bnfold.ops import RULES
from bnfold.reasons import Refused

OUT, IN, UP, DOWN = "absorb_output", "absorb_input", "lift", "sink"
ASK = {OUT: absorb_output, IN: absorb_input, UP: lift, DOWN: sink}
CHECK = {
    OUT: assert_absorbs_output,
    IN: assert_absorbs_input,
    UP: assert_lifts,
    DOWN: assert_sinks,
}
_RANDOM = np.random.default_rng(7)


def values(*shape: int) -> np.ndarray:
    return _RANDOM.uniform(0.5, 2, shape) * _RANDOM.choice([-1, 1], shape)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def conv(
    weight: tuple[int, ...],
    x: tuple[int, ...],
    attributes: str = "",
    bias: int | None = None,
    op: str = "Conv",
    data: str = "x",
    form: str | None = None,
) -> ModelProto:
    inputs = {"bias": ", b", "empty": ', ""', None: ""}[form or ("bias" if bias else None)]
    constants = {"w": values(*weight)} | ({"b": values(bias)} if bias else {})
    return one_op(f"y = {op} <{attributes}> ({data}, w{inputs})", {"x": x}, **constants)


def gemm(attributes: str, a: tuple[int, int], b: tuple[int, int], c: tuple[int, ...] | None) -> ModelProto:
    constants = {"w": values(*b)} | ({} if c is None else {"c": np.asarray(values(*c))})
    return one_op(f"y = Gemm <{attributes}> (x, w{'' if c is None else ', c'})", {"x": a}, **constants)


MODELS: dict[str, tuple[ModelProto, list[str]]] = {
    "conv-1d": (conv((4, 3, 3), (2, 3, 7), "pads = [1, 1]", 4), [OUT, IN]),
    "conv-2d": (conv((4, 3, 3, 3), (2, 3, 5, 5), "", 4), [OUT, IN]),
    "conv-3d": (conv((4, 2, 2, 1, 2), (1, 2, 3, 2, 3), "", 4), [OUT, IN]),
    "conv-no-bias": (conv((4, 3, 3, 3), (2, 3, 5, 5)), [OUT, IN]),
    "conv-empty-bias": (conv((4, 3, 3, 3), (2, 3, 5, 5), form="empty"), [OUT, IN]),
    "conv-grouped": (conv((6, 2, 3, 3), (2, 4, 5, 5), "group = 2", 6), [OUT, IN]),
    "conv-three-groups": (conv((6, 3, 1, 1), (2, 9, 2, 2), "group = 3"), [OUT, IN]),
    "conv-depthwise": (conv((4, 1, 3, 3), (2, 4, 5, 5), "group = 4, strides = [2, 1]", 4), [OUT, IN]),
    "conv-depthwise-two-each": (conv((6, 1, 2, 2), (2, 3, 3, 3), "group = 3"), [OUT, IN]),
    "conv-one-channel": (conv((1, 1, 2, 2), (2, 1, 3, 3), "", 1), [OUT, IN]),
    "conv-same-upper": (conv((4, 3, 2, 2), (2, 3, 5, 5), 'auto_pad = "SAME_UPPER"', 4), [OUT, IN]),
    "conv-same-lower": (conv((4, 3, 3, 1), (2, 3, 5, 5), 'auto_pad = "SAME_LOWER"', 4), [OUT, IN]),
    "conv-valid": (conv((4, 3, 3, 3), (2, 3, 5, 5), 'auto_pad = "VALID"', 4), [OUT, IN]),
    "conv-dilated": (conv((4, 3, 2, 2), (2, 3, 5, 5), "dilations = [2, 3]", 4), [OUT, IN]),
    "conv-square": (conv((4, 4, 1, 1), (4, 4, 4, 4), "", 4), [OUT, IN]),
} | {
    f"conv-transpose-{i}-to-{o}-in-{g}{'-bias' if bias else ''}": (
        conv((i, o // g, 2, 3), (2, i, 3, 2), f"group = {g}, strides = [2, 1]", o * bias, "ConvTranspose"),
        [OUT, IN],
    )
    for bias in (0, 1)
    for i, o, g in [(4, 3, 1), (4, 4, 2), (6, 3, 3), (6, 6, 3), (2, 8, 2), (3, 3, 3), (3, 6, 3), (1, 1, 1), (4, 6, 2)]
}
MODELS |= {
    "conv-transpose-1d": (conv((3, 2, 3), (2, 3, 4), "pads = [1, 0]", 2, "ConvTranspose"), [OUT, IN]),
    "conv-transpose-3d": (conv((4, 1, 2, 1, 2), (1, 4, 2, 2, 2), "group = 2", op="ConvTranspose"), [OUT, IN]),
    "conv-transpose-one-tap": (conv((4, 3, 1, 1), (2, 4, 3, 3), "group = 2", 6, "ConvTranspose"), [OUT, IN]),
    "conv-transpose-padding": (
        conv((3, 2, 3, 3), (1, 3, 3, 3), "strides = [2, 2], output_padding = [1, 0]", 2, "ConvTranspose"),
        [OUT, IN],
    ),
    "conv-transpose-dilated": (conv((3, 2, 2, 2), (1, 3, 3, 3), "dilations = [2, 2]", 2, "ConvTranspose"), [OUT, IN]),
}
MODELS |= {
    f"gemm-{ta}{tb}-{'none' if c is None else 'x'.join(map(str, c)) or 'scalar'}{'-scaled' if more else ''}": (
        gemm(f"transA = {ta}, transB = {tb}{more}", (5, 3) if ta else (3, 5), (4, 5) if tb else (5, 4), c),
        [OUT, IN],
    )
    for ta in (0, 1)
    for tb in (0, 1)
    for c in (None, (), (1,), (4,), (1, 4), (3, 1), (3, 4))
    for more in ([""] if ta else [", alpha = 0.5, beta = -1.5"])
}
MODELS |= {
    "gemm-beta-zero": (gemm("beta = 0.0", (3, 5), (5, 4), (4,)), [OUT, IN]),
    "gemm-square": (gemm("transB = 1", (4, 4), (4, 4), (4, 4)), [OUT, IN]),
    "gemm-left": (one_op("y = Gemm <alpha = 2.0> (w, x, c)", {"x": (5, 4)}, w=values(3, 5), c=values(3, 1)), [OUT, IN]),
    "gemm-left-transposed": (
        one_op("y = Gemm <transA = 1, transB = 1> (w, x)", {"x": (4, 5)}, w=values(5, 3)),
        [OUT, IN],
    ),
    "gemm-left-square": (one_op("y = Gemm (w, x)", {"x": (4, 4)}, w=values(4, 4)), [OUT, IN]),
    "matmul": (one_op("y = MatMul (x, w)", {"x": (3, 5)}, w=values(5, 4)), [OUT, IN]),
    "matmul-square": (one_op("y = MatMul (x, w)", {"x": (4, 4)}, w=values(4, 4)), [OUT, IN]),
    "matmul-left": (one_op("y = MatMul (w, x)", {"x": (5, 4)}, w=values(3, 5)), [OUT]),
    "matmul-rank-3": (one_op("y = MatMul (x, w)", {"x": (2, 3, 5)}, w=values(5, 4)), [OUT, IN]),
    "matmul-rank-4-left": (one_op("y = MatMul (w, x)", {"x": (2, 3, 5, 4)}, w=values(6, 5)), [OUT]),
    "matmul-batched": (one_op("y = MatMul (x, w)", {"x": (3, 2, 5)}, w=values(3, 5, 4)), [OUT, IN]),
    "matmul-batch-of-weight": (one_op("y = MatMul (x, w)", {"x": (2, 5)}, w=values(3, 5, 4)), [OUT, IN]),
    "matmul-broadcast-batch": (one_op("y = MatMul (x, w)", {"x": (3, 2, 5)}, w=values(1, 5, 4)), [OUT, IN]),
    "matmul-opset-9": (one_op("y = MatMul (x, w)", {"x": (3, 5)}, opset=9, w=values(5, 4)), [OUT, IN]),
    "matmul-vector-right": (one_op("y = MatMul (x, w)", {"x": (3, 5)}, w=values(5)), []),
    "matmul-vector-left": (one_op("y = MatMul (x, w)", {"x": (5,)}, w=values(5, 4)), []),
    "matmul-vector-left-batched": (one_op("y = MatMul (x, w)", {"x": (5,)}, w=values(3, 5, 4)), []),
    "matmul-constant-vector": (one_op("y = MatMul (w, x)", {"x": (2, 5, 4)}, w=values(5)), []),
}
MODELS |= {
    f"{op.lower()}-{'left' if left else 'right'}-{'x'.join(map(str, shape)) or 'scalar'}": (
        one_op(f"y = {op} ({'c, x' if left else 'x, c'})", {"x": (2, 4, 3, 3)}, c=np.asarray(values(*shape))),
        [] if op == "Div" and left else [OUT, IN, UP, DOWN],
    )
    for op in ("Mul", "Add", "Sub", "Div")
    for left in (False, True)
    for shape in ((), (1,), (4, 1, 1), (1, 4, 1, 1), (3,), (3, 3), (2, 4, 3, 3))
}
MODELS |= {
    f"{op.lower()}-opset-6-axis-{axis}": (
        one_op(
            f"y = {op} <broadcast = 1, axis = {axis}> (x, c)",
            {"x": (2, 4, 3, 5)},
            opset=6,
            c=values(*(2, 4, 3, 5)[axis:3]),
        ),
        [OUT, IN, UP, DOWN],
    )
    for op in ("Mul", "Add", "Sub", "Div")
    for axis in (0, 1, 2)
}
IMAGE = {"x": (2, 4, 6, 6)}
MODELS |= {
    "mul-expands": (one_op("y = Mul (x, c)", {"x": (2, 1, 3)}, c=values(4, 1)), []),
    "add-higher-rank": (one_op("y = Add (x, c)", {"x": (2, 4)}, c=values(3, 1, 1)), []),
    "sub-zero": (one_op("y = Sub (x, c)", {"x": (2, 4)}, c=np.zeros(4)), [OUT, IN, UP, DOWN]),
    "mul-zero": (one_op("y = Mul (x, c)", {"x": (2, 4)}, c=np.array([0, 1, 2, 0.0])), [OUT, IN]),
    "div-zero": (one_op("y = Div (x, c)", {"x": (2, 4)}, c=np.array([0, 1, 2, 0.0])), []),
    "neg": (one_op("y = Neg (x)", IMAGE), [UP, DOWN]),
    "relu": (one_op("y = Relu (x)", IMAGE), [UP, DOWN]),
    "leaky-relu": (one_op("y = LeakyRelu <alpha = -0.5> (x)", IMAGE), [UP, DOWN]),
    "prelu": (one_op("y = PRelu (x, s)", IMAGE, s=values(4, 1, 1)), [UP, DOWN]),
    "prelu-positions": (one_op("y = PRelu (x, s)", IMAGE, s=values(6, 6)), [UP, DOWN]),
    "clip-low": (one_op("y = Clip (x, low)", IMAGE, low=np.array(0.0)), [UP, DOWN]),
    "clip-both": (one_op("y = Clip (x, low, high)", IMAGE, low=np.array(0.0), high=np.array(0.5)), []),
    "clip-high": (one_op('y = Clip (x, "", high)', IMAGE, high=np.array(0.0)), []),
    "clip-infinity": (one_op("y = Clip (x, low, high)", IMAGE, low=np.array(0.0), high=np.array(np.inf)), [UP, DOWN]),
    "clip-opset-6": (one_op("y = Clip <min = 0.0> (x)", IMAGE, opset=6), [UP, DOWN]),
    "average": (one_op("y = AveragePool <kernel_shape = [2, 3], strides = [2, 1]> (x)", IMAGE), [UP, DOWN]),
    "average-padded": (one_op("y = AveragePool <kernel_shape = [3, 3], pads = [1, 0, 1, 2]> (x)", IMAGE), [UP, DOWN]),
    "average-counted": (
        one_op("y = AveragePool <kernel_shape = [3, 3], pads = [1, 0, 1, 2], count_include_pad = 1> (x)", IMAGE),
        [UP, DOWN],
    ),
    "average-same-counted": (
        one_op('y = AveragePool <kernel_shape = [3, 3], auto_pad = "SAME_UPPER", count_include_pad = 1> (x)', IMAGE),
        [UP, DOWN],
    ),
    "average-ceil": (
        one_op("y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)", IMAGE),
        [UP, DOWN],
    ),
    "average-1d": (one_op("y = AveragePool <kernel_shape = [2]> (x)", {"x": (2, 4, 6)}), [UP, DOWN]),
    "global-average": (one_op("y = GlobalAveragePool (x)", IMAGE), [UP, DOWN]),
    "max": (one_op("y = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)", IMAGE), [UP, DOWN]),
    "max-dilated": (one_op("y = MaxPool <kernel_shape = [2, 2], dilations = [2, 1]> (x)", IMAGE), [UP, DOWN]),
    "global-max": (one_op("y = GlobalMaxPool (x)", IMAGE), [UP, DOWN]),
    "lp": (one_op("y = LpPool <kernel_shape = [2, 2], p = 2, pads = [1, 0, 1, 0]> (x)", IMAGE), [UP, DOWN]),
}
MODELS |= {
    f"{op}-{'keep' if keep else 'drop'}-{''.join(map(str, axes)) or 'all'}": (
        one_op(
            f"y = {op} <keepdims = {keep}> (x{', axes' if axes else ''})",
            IMAGE,
            **({"axes": whole(*axes)} if axes else {}),
        ),
        [UP, DOWN],
    )
    for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
    for keep in (0, 1)
    for axes in ((2, 3), (-1,), (0, 2), (1,), ())
}
MODELS |= {
    "reduce-attribute": (one_op("y = ReduceMean <axes = [-1, 2], keepdims = 0> (x)", IMAGE, opset=13), [UP, DOWN]),
    "reduce-sum-attribute": (one_op("y = ReduceSum <axes = [1], keepdims = 0> (x)", IMAGE, opset=11), [UP, DOWN]),
    "reduce-nothing": (one_op("y = ReduceSum <noop_with_empty_axes = 1> (x)", IMAGE), [UP, DOWN]),
    "reduce-empty-axes": (one_op("y = ReduceSum (x, axes)", IMAGE, axes=np.zeros(0, np.int64)), [UP, DOWN]),
    "identity": (one_op("y = Identity (x)", IMAGE), [UP, DOWN]),
    "dropout": (one_op("y = Dropout (x, r)", IMAGE, r=np.array(0.3)), [UP, DOWN]),
    "transpose": (one_op("y = Transpose <perm = [2, 0, 3, 1]> (x)", {"x": (2, 3, 4, 5)}), [UP, DOWN]),
    "transpose-reversed": (one_op("y = Transpose (x)", {"x": (2, 3, 4)}), [UP, DOWN]),
    "transpose-cube": (one_op("y = Transpose <perm = [1, 2, 0]> (x)", {"x": (3, 3, 3)}), [UP, DOWN]),
    "squeeze": (one_op("y = Squeeze (x, a)", {"x": (2, 1, 3, 1)}, a=whole(-1, 1)), [UP, DOWN]),
    "squeeze-all": (one_op("y = Squeeze (x)", {"x": (2, 1, 3, 1)}), [UP, DOWN]),
    "squeeze-attribute": (one_op("y = Squeeze <axes = [1]> (x)", {"x": (2, 1, 3, 1)}, opset=11), [UP, DOWN]),
    "unsqueeze": (one_op("y = Unsqueeze (x, a)", {"x": (2, 3)}, a=whole(-1, 1)), [UP, DOWN]),
    "unsqueeze-unsorted": (one_op("y = Unsqueeze (x, a)", {"x": (2, 3)}, a=whole(3, 0)), [UP, DOWN]),
    "unsqueeze-attribute": (one_op("y = Unsqueeze <axes = [0, 3]> (x)", {"x": (2, 3)}, opset=11), [UP, DOWN]),
}
MODELS |= {
    f"flatten-{axis}": (one_op(f"y = Flatten <axis = {axis}> (x)", {"x": (2, 3, 4, 2)}), [UP, DOWN])
    for axis in (0, 1, 2, 3, 4, -1, -3)
}
MODELS |= {
    f"reshape-{'x'.join(map(str, source))}-to-{'x'.join(map(str, target))}": (
        one_op("y = Reshape (x, s)", {"x": source}, s=whole(*target)),
        [UP, DOWN],
    )
    for source, target in [
        ((2, 3, 4, 5), (2, 3, 20)),
        ((2, 3, 4, 5), (0, -1)),
        ((2, 3, 4, 5), (2, 12, 5)),
        ((2, 6, 4), (2, 2, 3, 4)),
        ((2, 6, 4), (2, 3, 2, 4)),
        ((2, 6, 4), (12, 4)),
        ((2, 6, 4), (2, 4, 6)),
        ((2, 6, 4), (4, 3, 4)),
        ((2, 6, 4), (1, 2, 1, 6, 4, 1)),
        ((2, 6, 1), (2, 6)),
        ((4, 4), (2, 8)),
        ((4, 4), (2, 2, 2, 2)),
        ((4, 3, 4), (4, 4, 3)),
        ((2, 3, 2), (3, 2, 2)),
        ((6,), (2, 3)),
        ((2, 3), (6,)),
        ((2, 3), (-1,)),
        ((1, 1), ()),
    ]
}
MODELS |= {
    "expand": (one_op("y = Expand (x, s)", {"x": (2, 1, 3)}, s=whole(2, 4, 3)), [UP, DOWN]),
    "expand-rank": (one_op("y = Expand (x, s)", {"x": (2, 1, 3)}, s=whole(5, 1, 4, 1)), [UP, DOWN]),
    "expand-short": (one_op("y = Expand (x, s)", {"x": (2, 1, 3)}, s=whole(1)), [UP, DOWN]),
    "tile": (one_op("y = Tile (x, r)", {"x": (2, 3, 2)}, r=whole(1, 2, 3)), [UP, DOWN]),
    "depth-to-space": (one_op("y = DepthToSpace <blocksize = 2> (x)", {"x": (2, 8, 2, 3)}), [UP, DOWN]),
    "depth-to-space-crd": (
        one_op('y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)', {"x": (2, 8, 2, 3)}),
        [UP, DOWN],
    ),
    "space-to-depth": (one_op("y = SpaceToDepth <blocksize = 2> (x)", {"x": (2, 2, 4, 2)}), [UP, DOWN]),
    "batchnorm": (
        one_op(
            "y = BatchNormalization <epsilon = 0.1> (x, s, b, m, v)",
            IMAGE,
            s=values(4),
            b=values(4),
            m=values(4),
            v=np.abs(values(4)),
        ),
        [OUT, IN],
    ),
}
SEQUENCE = {"x": (3, 2, 5)}
MODELS |= {
    f"{op.lower()}-{direction}{'-bias' if bias else ''}": (
        one_op(
            f'y = {op} <hidden_size = 4, direction = "{direction}"{more}> (x, w, r{", b" if bias else ""})',
            SEQUENCE,
            w=values(sides, gates * 4, 5),
            r=values(sides, gates * 4, 4),
            **({"b": values(sides, 2 * gates * 4)} if bias else {}),
        ),
        [IN],
    )
    for op, gates, more in (("LSTM", 4, ""), ("GRU", 3, ", linear_before_reset = 1"), ("GRU", 3, ""), ("RNN", 1, ""))
    for direction, sides in (("forward", 1), ("bidirectional", 2))
    for bias in (False, True)
    if sides == 1 or op == "LSTM"  # onnx.reference has the others in one direction alone
}
MODELS |= {
    f"deform-conv-{group}{'-bias' if bias else ''}": (
        one_op(
            f"y = DeformConv <group = {group}, pads = [1, 1, 1, 1]> (x, w, o{', b, m' if bias else ''})",
            {"x": (1, 4, 3, 3)},
            opset=19,
            w=values(2, 4 // group, 2, 2),
            o=values(1, 8, 4, 4),
            **({"b": values(2), "m": np.abs(values(1, 4, 4, 4))} if bias else {}),
        ),
        [OUT, IN],
    )
    for group in (1, 2)
    for bias in (False, True)
}
MODELS |= {
    "cast": (one_op("y = Cast <to = 11> (x)", IMAGE), [UP, DOWN]),
    "cast-like": (one_op("y = CastLike (x, c)", IMAGE, c=values(1)), [UP, DOWN]),
}
ABILITIES = [
    pytest.param(model, ability, ability in must, id=f"{name}-{ability}")
    for name, (model, must) in MODELS.items()
    for ability in (OUT, IN, UP, DOWN)
    if getattr(RULES[only_op(model).type], ability) is not None
]


def shape_for(model: ModelProto, ability: str) -> tuple[int, ...]:
    feeds = inputs_for(model, {})
    value = feeds["x"] if ability in (IN, DOWN) else run(model, feeds)["y"]
    return np.shape(value)


def index_of_data(model: ModelProto) -> dict[str, int]:
    return {"index": list(model.graph.node[0].input).index("x")}


@pytest.mark.parametrize(("model", "ability", "must"), ABILITIES)
def test_what_a_rule_answers_is_true(model, ability, must):
    """For any affine, an answer computes what operator and affine computed; and some affine has one."""
    shape = shape_for(model, ability)
    where = index_of_data(model) if ability in (IN, DOWN) else {}
    answered = []

    def answers(affine):
        try:
            answer = ASK[ability](model, affine, *where.values())
        except Refused:
            return False
        return ability in (OUT, IN) or len(answer) > 0  # no way at all is a refusal, too

    @few
    @given(affine=affines(shape))
    def check(affine):
        if not answers(affine):
            return
        answered.append(affine)
        CHECK[ability](model, affine, *where.values())

    check()
    for axis in range(len(shape)):  # and one that varies along each axis alone
        own = [size if at == axis else 1 for at, size in enumerate(shape)]
        for affine in (an_affine(*own), an_affine(*own, positive=True, shift=False)):
            if not answers(affine):
                continue
            answered.append(affine)
            CHECK[ability](model, affine, *where.values())
    assert answered or not must
