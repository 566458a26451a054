"""Casts of constants: what ONNX's reference implementation and ONNX Runtime make of them, or nothing."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from helpers import Array, assert_close, folded, model_of, run
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bnfold.graph import Constant, Graph, is_float
from bnfold.model_io import load
from bnfold.verification import Verdict, verify

OPSET, IR = 25, 13  # the last that ONNX Runtime knows, for casts
FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
FLOATS8 = ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ")
RARE = ("FLOAT8E8M0", "FLOAT4E2M1", "FLOAT6E2M3", "FLOAT6E3M2")
INTEGERS = tuple(f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (2, 4, 8, 16, 32, 64))
WHOLE = (*INTEGERS, "BOOL")
ALL = [name for name in (*FLOATS, *FLOATS8, *RARE, *WHOLE) if hasattr(TensorProto, name)]
SOME = [0, 1, -1, 2, 3, 7, 8, -8, 9, 15, 16, 17, 100, 127, 128, 200, 255, 256, -128, -129, 300, 0.1, -2.7, 3.14]
LARGE = [448, 449, 463, 464, 465, 480, -500, 240, 247, 248, 250]
LARGE += [57344, 61439, 61440, 61441, 65504, 65519, 65520, 70000, -70000]
TINY = [2**-10, 2**-10 * 1.5, -(2**-9), 2**-14, 2**-17, 1e-6, 1e-8, 1 + 2**-4 + 2**-20, 1 + 2**-8 + 2**-20]


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(name)))


def values_of(name: str) -> Array:
    """Values of a type: ordinary ones, and such as other types have no room for."""
    dtype = dtype_of(name)
    if name == "BOOL":
        return np.array([False, True])
    numbers = np.array([*SOME, *LARGE, *TINY])
    if is_float(dtype):
        with np.errstate(all="ignore"):
            made = (np.abs(numbers) if name in RARE else numbers).astype(np.float32).astype(dtype)
        return made[np.isfinite(made.astype(np.float64))]
    info = ml_dtypes.iinfo(dtype)
    whole = [int(number) for number in numbers if info.min <= number <= info.max]
    wide = np.uint64 if name == "UINT64" else np.int64
    return np.array([*whole, info.min, info.max, info.max // 3], wide).astype(dtype)


def cast_model(array: Array, to: str, saturate: int | None = None) -> ModelProto:
    attributes = {} if saturate is None else {"saturate": saturate}
    kind = TensorProto.DataType.Value(to)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=kind, **attributes)],
        "cast",
        [],
        [helper.make_tensor_value_info("y", kind, array.shape)],
        [numpy_helper.from_array(array, "x")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def constant_of(model: ModelProto, name: str = "y") -> Constant | None:
    graph = Graph(load(model))
    return graph.constant(graph.main.values[name])


def by_reference(model: ModelProto) -> Array | None:
    try:
        with np.errstate(all="ignore"):
            return np.asarray(ReferenceEvaluator(model).run(None, {})[0])
    except TypeError:  # numpy has no way
        return None


def by_runtime(model: ModelProto) -> Array | None:
    """In float64, which is wide enough for all but the largest integers; None where ONNX Runtime has no kernel."""
    wide = ModelProto.FromString(model.SerializeToString())
    if model.graph.output[0].type.tensor_type.elem_type not in (TensorProto.INT64, TensorProto.UINT64):
        wide.graph.node.append(helper.make_node("Cast", ["y"], ["z"], to=TensorProto.DOUBLE))
        wide.graph.output[0].name, wide.graph.output[0].type.tensor_type.elem_type = "z", TensorProto.DOUBLE
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(wide.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # its exceptions have no common base
        return None
    return np.asarray(session.run(None, {})[0])


def in_common(array: Array) -> Array:
    return array if array.dtype in (np.int64, np.uint64) else array.astype(np.float64)


@pytest.mark.parametrize("saturate", [None, 1, 0])
@pytest.mark.parametrize("source", ALL)
def test_a_constant_is_what_both_make_of_it(source, saturate):
    """For every type that both cast to: their result, or no constant where they differ."""
    compared = 0
    for to in ALL if saturate is None else FLOATS8:
        model = cast_model(values_of(source), to, saturate)
        constant = constant_of(model)
        if constant is None:
            continue
        found = constant.array()
        assert found.dtype == constant.dtype == dtype_of(to)
        for expected in (by_reference(model), by_runtime(model)):
            if expected is not None:
                compared += 1
                np.testing.assert_array_equal(in_common(found), in_common(expected), err_msg=to)
    assert compared or saturate == 0


@pytest.mark.parametrize("source", [*FLOATS, *FLOATS8, *WHOLE])
def test_what_is_clear_is_constant(source):
    """To floating-point types always; to others from whole numbers, which lose their upper bits."""
    targets = {*FLOATS, *FLOATS8, *(WHOLE if source in WHOLE else ())}
    constant = {to for to in ALL if constant_of(cast_model(values_of(source), to)) is not None}
    assert constant == targets


def test_special_numbers():
    """NaN stays, infinity becomes the largest number where there is none or the cast saturates."""
    special = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    for to, largest in (("FLOAT8E4M3FN", 448), ("FLOAT8E4M3FNUZ", 240), ("FLOAT8E5M2", 57344), ("FLOAT16", np.inf)):
        expected = np.array([np.nan, largest, -largest, 0])
        np.testing.assert_array_equal(constant_of(cast_model(special, to)).float64(), expected)


@pytest.mark.parametrize("to", FLOATS8)
def test_without_saturation_only_what_is_in_range_is_constant(to):
    """Beyond it runtimes differ: 480 is 448 or NaN in e4m3fn. A large tensor is looked at as a whole."""
    for array in (np.ones(3, np.float32), np.ones(1 << 15, np.float32)):
        assert constant_of(cast_model(array, to, 0)) is not None
        array[-1] = 1e5
        assert constant_of(cast_model(array, to, 0)) is None
        assert constant_of(cast_model(array, to, 1)).float64().max() == float(ml_dtypes.finfo(dtype_of(to)).max)


@pytest.mark.parametrize(
    ("to", "value", "expected"),
    [
        ("BFLOAT16", 1 + 2**-8 + 2**-40, 1 + 2**-7),
        ("FLOAT16", 1 + 2**-11 + 2**-40, 1 + 2**-10),
        ("FLOAT8E4M3FN", 1 + 2**-4 + 2**-40, 1 + 2**-3),
        ("FLOAT8E5M2", 1 + 2**-3 + 2**-40, 1 + 2**-2),
    ],
)
def test_a_real_number_is_rounded_once(to, value, expected):
    """By way of float32 it would come to lie between two values, and go to the wrong one."""
    assert constant_of(cast_model(np.array([value]), to)).float64() == expected


@pytest.mark.parametrize("body", ["c = Cast <to = @> ({a: 3})", "c = CastLike ({a: 3}, {b: 1 int32})"])
@pytest.mark.parametrize("to", ["0", "8", "14", "99"])
def test_other_types_are_no_constant(body, to):
    """Strings, complex numbers, and types that do not exist; real numbers as integers."""
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) {{ {body} y = Identity (x) }}'
    assert constant_of(model_of(text.replace("@", to)), "c") is None


def test_a_type_by_name():
    """Before opset 6 a Cast names its type with a string."""
    model = model_of(
        '<ir_version: 3, opset_import: ["": 5]> g (float[1] x) => (float y) { y = Cast <to = "FLOAT"> ({a: 3}) }'
    )
    assert constant_of(model) is None


# --- in a fold, and in its verification ----------------------------------------------------------------------

NET = """<ir_version: 9, opset_import: ["": 19]> g (float[2, 3, 6, 6] x) => (float[2, 3, 4, 4] y) {
    @ c = Conv (x, w) y = BatchNormalization (c, {bn: 3}) }"""
BRANCH = """<ir_version: 9, opset_import: ["": 19]>
g (float[2, 3, 6, 6] x, bool p) => (float[2, 3, 4, 4] y) { y = If (p) <
    then_branch = t () => (float[2, 3, 4, 4] z) { @ c = Conv (x, w) z = BatchNormalization (c, {bn: 3}) },
    else_branch = e () => (float[2, 3, 4, 4] z) { z = Conv (x, {w2: 3, 3, 3, 3}) }> }"""
CASTS = {
    "cast": "h = Cast <to = 17> (w0) w = Cast <to = 1> (h)",
    "castlike": "t = Cast <to = 17> ({one: 1}) h = CastLike (w0, t) w = CastLike (h, x)",
    "not-saturated": "h = Cast <to = 17, saturate = 0> (w0) w = Cast <to = 1> (h)",
    "half": "h = Cast <to = 10> (w0) w = Cast <to = 1> (h)",
    "int4": "h = Cast <to = 22> ({i: 3, 3, 3, 3 int64}) w = Cast <to = 1> (h)",
}


def net_of(cast: str, net: str = NET, largest: float = 1000) -> ModelProto:
    model = model_of(net.replace("@", CASTS[cast]))
    if cast == "int4":
        model.opset_import[0].version, model.ir_version = 21, 10
        (stored,) = (tensor for tensor in model.graph.initializer if tensor.name == "i")
        stored.CopyFrom(numpy_helper.from_array(np.arange(1, 82).reshape(3, 3, 3, 3), "i"))
        return model
    weight = np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(np.float32)
    weight[0, 0, 0, 0] = largest
    model.graph.initializer.append(numpy_helper.from_array(weight, "w0"))
    return model


@pytest.mark.parametrize("cast", [name for name in CASTS if name != "not-saturated"])
def test_a_weight_that_was_cast_takes_a_batchnorm(cast):
    """With the values that the operator gives it."""
    model = net_of(cast)
    _, result = folded(model)
    assert len(result.graph.node) == 1
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype(np.float32)
    assert_close(run(result, {"x": x})["y"], run(model, {"x": x})["y"], 1e-5)


def test_a_weight_that_overflows_takes_none():
    """It stays as it is, and so does the scale of the BatchNormalization."""
    _, result = folded(net_of("not-saturated"))
    assert [node.op_type for node in result.graph.node] == ["Cast", "Cast", "Conv", "Mul"]
    _, result = folded(net_of("not-saturated", largest=300))
    assert len(result.graph.node) == 1


@pytest.mark.parametrize(("cast", "net"), [*((cast, NET) for cast in CASTS), ("cast", BRANCH), ("castlike", BRANCH)])
def test_verification_casts_in_the_same_way(cast, net):
    """Every fold through a cast is equal, also in a body; a weight that was not cast is not."""
    model = net_of(cast, net, largest=300 if cast == "not-saturated" else 1000)
    _, result = folded(model)
    assert result != model
    assert verify(model, result).verdict is Verdict.EQUIVALENT
    graphs = [result.graph, *(attribute.g for node in result.graph.node for attribute in node.attribute)]
    (weight,) = (tensor for graph in graphs for tensor in graph.initializer if tensor.name.startswith("w_"))
    array = numpy_helper.to_array(weight).copy()
    array[0, 0, 0, 0] *= 1.01
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    assert verify(model, result).verdict is Verdict.DIFFERENT
