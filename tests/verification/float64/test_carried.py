"""Every operator's rule for errors: whatever the inputs are within theirs, the result is within the bound."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification.float64.carried import Call, Num, Rounding, rounding_to, tried
from bnfold.verification.float64.kernel import NotComputed
from bnfold.verification.float64.kernels import KERNELS
from bnfold.verification.float64.rules import RULES, carried
from bnfold.verification.float64.store import Store

Array = np.ndarray[Any, np.dtype[Any]]
MOVES = 40
SLACK = 1 + 1e-9


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def positive(*shape: int) -> Array:
    return np.abs(normal(*shape)) + 0.1


@dataclass(frozen=True)
class Case:
    """An operator and its inputs; those in ``exact`` have no errors."""

    type: str
    inputs: tuple[Array, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    exact: tuple[int, ...] = ()
    opset: int = 22
    outputs: int = 1

    def __str__(self) -> str:
        return "-".join([self.type, *map(str, self.attributes.values()), str(self.opset)])

    def call(self, errors: list[Array | None], unit: float = 0.0, *, fresh: bool = False) -> Call:
        domain, name = self.type.rpartition("::")[::2]
        names = [f"i{number}" for number in range(len(self.inputs))]
        ports = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in zip(names, self.inputs, strict=True)
        ]
        made = [f"o{number}" for number in range(self.outputs)]
        node = helper.make_node(name, names, made, domain=domain, **self.attributes)
        graph = helper.make_graph([node], "n", ports, [helper.make_empty_tensor_value_info("o0")])
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = Graph(load(helper.make_model(graph, opset_imports=opsets, ir_version=10)))
        (op,) = model.main.ops
        store = Store(model.model)

        def run(arrays: Any) -> Any:
            try:
                return KERNELS[op.type](op, arrays)
            except (KeyError, NotComputed):
                return store.reference(op, arrays)

        nums = [Num(array, error, fresh) for array, error in zip(self.inputs, errors, strict=True)]
        return Call(op, nums, run(self.inputs), run, unit)


X, Y = normal(2, 4, 6, 5), normal(2, 4, 6, 1)
V, P = normal(4), positive(4)
W = normal(4, 4, 3, 3)
AXIS, PADS = np.array([2]), np.array([0, 0, 1, 0, 0, 0, 2, 1])
TRUTHS = normal(2, 4, 6, 5) > 0
STEPS = np.random.default_rng(0).integers(-100, 100, (2, 4, 6, 5)).astype(np.int8)
ONE = (1,)
CASES = [
    *(
        Case(name, (X,))
        for name in ("Identity", "Dropout", "Relu", "Sigmoid", "Tanh", "Exp", "Erf", "Softplus", "Sign")
    ),
    *(Case(name, (X,)) for name in ("Softsign", "HardSigmoid", "Selu", "Celu", "Floor", "Ceil", "Round", "HardSwish")),
    *(Case(name, (X,)) for name in ("Neg", "Abs", "Sin", "Cos", "Atan", "Asinh", "Sinh", "Gelu", "Mish", "Elu")),
    *(Case(name, (X,)) for name in ("IsNaN", "IsInf", "Shape", "Size", "Flatten", "GlobalMaxPool", "Softmax")),
    *(Case(name, (X,)) for name in ("GlobalAveragePool", "GlobalLpPool", "LogSoftmax", "LeakyRelu", "Transpose")),
    *(Case(f"com.microsoft::{name}", (X,)) for name in ("Gelu", "FastGelu", "QuickGelu")),
    *(Case(name, (positive(2, 4, 6, 5),)) for name in ("Sqrt", "Log", "Reciprocal")),
    *(Case(name, (X, Y)) for name in ("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean", "PRelu")),
    *(Case(name, (X, Y)) for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *(Case(name, (TRUTHS, TRUTHS[::-1])) for name in ("And", "Or", "Xor")),
    *(Case(name, (X, AXIS), exact=ONE) for name in ("ReduceL1", "ReduceL2", "ReduceSum", "ReduceMean", "ReduceMax")),
    *(Case(name, (X, AXIS), exact=ONE) for name in ("ReduceMin", "ReduceLogSumExp", "ReduceSumSquare", "Unsqueeze")),
    *(Case(name, (X,), {"kernel_shape": [3, 2]}) for name in ("MaxPool", "AveragePool", "LpPool")),
    *(Case(name, (X,), {"blocksize": 2}) for name in ("DepthToSpace",)),
    *(Case("Pow", (X, np.full((), power)), exact=ONE) for power in (2.0, 3.0)),
    *(Case("Pow", (positive(2, 4, 6, 5), np.full((), power)), exact=ONE) for power in (0.5, 1.7, -1.0)),
    *(
        Case("Resize", (X, np.zeros(0), np.array([1.0, 1.0, 2.0, 1.6])), {"mode": m}, exact=(1, 2))
        for m in ("linear", "nearest")
    ),
    *(Case("BatchNormalization", (X, V, V[::-1], V / 2, P), exact=exact) for exact in ((), (0,), (1, 2, 3, 4))),
    Case("QuantizeLinear", (X, np.full((), 0.1), np.full((), 3, np.int8)), exact=(1, 2)),
    *(Case("DequantizeLinear", (STEPS, P, np.full(4, 3, np.int8)), {"axis": 1}, exact=exact) for exact in ((), (0, 2))),
    *(
        Case("Cast", (3 * X,), {"to": to})
        for to in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
    ),
    Case("Not", (TRUTHS,)),
    Case("CastLike", (3 * X, STEPS), exact=ONE),
    Case("Clip", (X, np.full((), -0.5), np.full((), 0.7))),
    Case("ReduceLogSum", (positive(2, 4, 6, 5), AXIS), exact=ONE),
    Case("Squeeze", (Y, np.array([3])), exact=ONE),
    Case("Reshape", (X, np.array([2, -1])), exact=ONE),
    Case("Slice", (X, AXIS, AXIS + 3, AXIS), exact=(1, 2, 3)),
    Case("Gather", (X, np.array([[1, 3], [0, 0]])), {"axis": 2}, exact=ONE),
    Case("GatherElements", (X, np.ones((2, 4, 6, 5), np.int64)), {"axis": 2}, exact=ONE),
    Case("GatherND", (X, np.array([[1, 2], [0, 3]])), exact=ONE),
    Case("Split", (X, np.array([1, 3])), {"axis": 1}, exact=ONE, outputs=2),
    Case("Expand", (Y, np.array([2, 4, 6, 5])), exact=ONE),
    Case("Tile", (X, np.array([1, 2, 1, 1])), exact=ONE),
    Case("SpaceToDepth", (normal(1, 2, 4, 4),), {"blocksize": 2}),
    Case("ReverseSequence", (normal(5, 2, 3), np.array([5, 3])), exact=ONE),
    Case("Compress", (X, np.array([True, False, True, True])), {"axis": 1}, exact=ONE),
    Case("Trilu", (X,)),
    Case("ScatterElements", (X, np.ones((2, 4, 1, 5), np.int64), X[:, :, :1]), {"axis": 2}, exact=ONE),
    Case(
        "ScatterElements", (X, np.ones((2, 4, 1, 5), np.int64), X[:, :, :1]), {"axis": 2, "reduction": "max"}, exact=ONE
    ),
    Case("ScatterND", (X, np.array([[1]]), X[:1]), exact=ONE),
    *(Case(name, (X,), {"axis": 1, "keepdims": keep}) for name in ("ArgMax", "ArgMin") for keep in (0, 1)),
    Case("Hardmax", (X,), {"axis": 1}),
    Case("OneHot", (np.array([[1, 3], [2, 2]]), np.array(6), np.array([0.5, 2.0])), {"axis": 1}, exact=(1, 2)),
    Case("Gather", (X, np.array([[1, 3], [2, 2]])), {"axis": 2}),
    Case("GatherElements", (X, np.ones((2, 4, 6, 5), np.int64)), {"axis": 2}),
    *(Case("TopK", (X, np.array([3])), {"axis": 2, "largest": k}, exact=ONE, outputs=2) for k in (0, 1)),
    Case("TopK", (X, np.array([6])), {"axis": 2}, exact=ONE, outputs=2),
    Case("ScatterND", (X, np.array([[1], [1]]), X[:2]), {"reduction": "min"}, exact=ONE),
    Case("Pad", (X,), {"pads": [0, 0, 1, 0, 0, 0, 2, 1], "value": 0.7}, opset=10),
    Case(
        "Resize",
        (X, np.array([0, 0, -0.5, 0, 1, 1, 1.5, 1.0]), np.zeros(0), np.array([2, 4, 9, 5])),
        {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 0.7, "mode": "linear"},
        exact=(1, 2, 3),
    ),
    Case("Pad", (X, PADS, np.full((), 0.7)), exact=ONE),
    Case("Concat", (X, Y), {"axis": 3}),
    Case("CumSum", (X, np.array(2)), exact=ONE),
    Case("Upsample", (X, np.array([1.0, 1.0, 2.0, 2.0])), exact=ONE, opset=9),
    Case("Resize", (X, np.zeros(0), np.array([1.0, 1.0, 2.0, 1.6])), {"mode": "cubic"}, exact=(1, 2)),
    Case("Softmax", (X,), {"axis": 1}, opset=11),
    Case("LogSoftmax", (X,), {"axis": 2}),
    Case("Div", (X, positive(2, 4, 6, 1))),
    Case("Div", (STEPS.astype(np.int64), np.array([3])), exact=ONE),
    Case("Where", (TRUTHS, STEPS, STEPS[:, :, ::-1]), exact=(1, 2)),
    Case("Where", (TRUTHS, X, Y)),
    Case("Where", (TRUTHS, X, Y), exact=(0,)),
    Case("Swish", (X,), opset=24),
    Case("com.microsoft::BiasGelu", (X, normal(5))),
    Case("Conv", (X, W, V), {"pads": [1, 1, 1, 1]}),
    Case("Conv", (X, W[:, :2], V), {"group": 2, "strides": [2, 1]}, exact=(0,)),
    Case("com.microsoft::FusedConv", (X, W, V), {"activation": "Relu"}),
    Case("com.microsoft::FusedConv", (X, W), {"activation": "HardSigmoid", "activation_params": [0.2, 0.5]}),
    Case("ConvTranspose", (X, W, V), {"strides": [2, 2]}),
    Case("MatMul", (X, normal(5, 3))),
    Case("com.microsoft::FusedMatMul", (X, normal(5, 3)), {"alpha": -3.0}),
    Case("Gemm", (normal(6, 4), normal(5, 4), normal(5)), {"transB": 1, "alpha": -3.0, "beta": -0.5}),
    Case("Einsum", (X, normal(5, 3)), {"equation": "abcd,de->abce"}),
    Case("LayerNormalization", (X, normal(5), normal(5))),
    Case("InstanceNormalization", (X, V, V)),
    Case("GroupNormalization", (X, V, V), {"num_groups": 2}),
    Case("GroupNormalization", (X, V[:2], V[:2]), {"num_groups": 2}, opset=18),
    Case("RMSNormalization", (X, normal(5)), opset=23),
    Case("SimplifiedLayerNormalization", (X, normal(5))),
]
ROOTS = {"Sqrt", "Pow"}  # two sides that are both finite have no negative number below a root
STEEP = {
    "ArgMax",
    "ArgMin",
    "Hardmax",
    "TopK",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
    "Cast",
    "CastLike",
    "QuantizeLinear",
    "Where",
}


def errors_of(case: Case, size: float) -> list[Array | None]:
    """Of each entry another one; of truths and integers a whole step here and there."""
    random = np.random.default_rng(1)
    return [
        None
        if number in case.exact
        else size * random.random(array.shape)
        if array.dtype == np.float64
        else (random.random(array.shape) < 0.2).astype(float)
        for number, array in enumerate(case.inputs)
    ]


def test_every_rule_has_a_case():
    """None is trusted unseen."""
    assert {case.type for case in CASES} == set(RULES)


@pytest.mark.parametrize("size", [1e-6, 0.3], ids=["small errors", "large errors"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_moved_inputs_stay_within_the_bound(case, size):
    """Up, down, and anywhere between; and the bound is no idle one."""
    errors = errors_of(case, size)
    call = case.call(errors)
    with np.errstate(all="ignore"):
        results = carried(call)
    random = np.random.default_rng(2)
    draws: list[Callable[[Array], Array]] = [np.ones_like, lambda e: -np.ones_like(e)]
    draws += [lambda e: random.choice((-1.0, 1.0), e.shape), lambda e: random.uniform(-1, 1, e.shape)] * (MOVES // 2)
    largest = 0.0
    with np.errstate(all="ignore"):
        for draw in draws:
            moved = call.run(call.shifted(draw))
            for num, array in zip(results, moved, strict=True):
                error = 0.0 if num.error is None else num.error
                move = np.abs(array.astype(float) - num.value.astype(float))
                move = np.where(np.isnan(move), 0.0 if case.type in ROOTS else np.inf, move)
                assert (move <= SLACK * error + 1e-12).all()
                largest = max(largest, float(move.max()))
    if size < 0.1 and case.type not in STEEP:
        bounds = [float(num.error.max()) for num in results if num.error is not None]
        assert max(bounds, default=0.0) <= 100 * largest + 1e-12


SUMS = [case for case in CASES if case.type in {"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum"}]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", SUMS, ids=str)
def test_rounded_weights_stay_within_the_bound(case, dtype):
    """Each entry was rounded on its own: what that does to a sum is within the bound, which is below the worst case."""
    weight = case.inputs[1].astype(dtype).astype(float)
    rounded = Case(case.type, (case.inputs[0], weight, *case.inputs[2:]), case.attributes, case.exact, case.opset)
    errors = [None, rounding_to(np.dtype(dtype)).of(weight), *[None] * (len(case.inputs) - 2)]
    call = rounded.call(errors, fresh=True)
    error, worst = (carried(c)[0].error for c in (call, rounded.call(errors)))
    assert (np.abs(call.run(case.inputs)[0] - call.outputs[0]) <= SLACK * error).all()
    assert (error <= worst).all()


@pytest.mark.parametrize("number", [0.0, 1.0, -1.5, 1e-45, 3e-40, 65504.0])
def test_a_rounding_is_half_a_unit_in_the_last_place(number):
    """Beside zero and below the normal numbers it is half the smallest."""
    number = float(np.float32(number))
    gap = float(np.spacing(np.float32(abs(number))))
    assert Rounding(*rounding_to(np.dtype(np.float32))).of(np.array(number)) == gap / 2


def test_an_operator_without_a_rule_is_tried():
    """Up, down and at random: each move that was tried is within the bound, and the same call has the same bound."""
    case = Case("Cosh", (X,))
    call = case.call(errors_of(case, 1e-6))
    assert case.type not in RULES
    bounds = [tried(call)[0] for _ in range(2)]
    assert bounds[0] is not None
    np.testing.assert_array_equal(*bounds)
    for sign in (1, -1):
        assert (
            np.abs(call.run(call.shifted(lambda e, s=sign: s * np.ones_like(e)))[0] - call.outputs[0]) <= bounds[0]
        ).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_rounding_is_half_the_distance_of_neighbours_of_every_number(dtype):
    """Of any size, subnormal numbers and zero included; what is no number or infinite has no larger one."""
    rounding = rounding_to(np.dtype(dtype))
    sizes = np.ldexp([1.0, -1.5, 1.99], np.arange(-1074, 1023)[:, None]).ravel()
    power = np.ldexp(1.0, np.frexp(sizes)[1] - 1)
    np.testing.assert_array_equal(rounding.of(sizes), np.maximum(rounding.u * power, rounding.eta))
    np.testing.assert_array_equal(rounding.of(np.array([np.inf, np.nan, -np.inf])), rounding.u / 2)
    assert rounding.of(np.array(0.0)) == rounding.eta
    assert Rounding(0.0, 1.0).of(np.array([3, -4], np.int32)).tolist() == [1.0, 1.0]
