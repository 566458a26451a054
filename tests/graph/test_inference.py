"""ONNX's inference ends the process at some models, and goes on for ever at others: bnfold does neither."""

import itertools
import os
import signal
import sys

import numpy as np
import onnx
import onnx.shape_inference
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_node, make_tensor_type_proto

from bnfold.confined import Exhausted
from bnfold.graph import Graph, inference
from bnfold.graph.inference import apart, inferable
from bnfold.graph.notes import types_made
from bnfold.model_io import load
from bnfold.optimization.macs import macs

CUT = "r = Slice (v, zero, two, axis)"
TOO_SMALL = {
    "window": f"v = MaxPool <kernel_shape = [9, 9]> (x) {CUT}",
    "behind-another": f"u = Slice (x, zero, two, axis) v = MaxPool <kernel_shape = [5, 5]> (u) {CUT}",
    "pad": f"v = Pad (x, pads) {CUT}",
    "list-of-tensors": f"v = SequenceAt (list, one) {CUT}",
    "function": "r = own.F (x, zero, two, axis)",
    "body": f"r = If (ask) <then_branch = t () => (float[n, c, h, w] a) {{ v = MaxPool <kernel_shape = [9, 9]> (x) "
    f"{CUT.replace('r', 'a', 1)} }}, else_branch = e () => (float[n, c, h, w] b) {{ b = Identity (x) }}>",
}


def model_with(body: str, opset: int) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": {opset}, "own": 1]>
        g (float[1, 1, 8, 8] x, seq(float[1, 1, -3, 8]) list, bool ask) => (float[a, b, c, d] y)
        <int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] axis = {{2}}, int64 one = {{1}},
         int64[8] pads = {{0, 0, -20, 0, 0, 0, 0, 0}}> {{ {body} y = Relu (r) }}
        <domain: "own", opset_import: ["": {opset}]>
        F (x, zero, two, axis) => (r) {{ v = MaxPool <kernel_shape = [9, 9]> (x) {CUT} }}""")


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("body", TOO_SMALL.values(), ids=TOO_SMALL.keys())
def test_sizes_below_zero(body, opset):
    """They are unknown behind the Slice, whatever they come of."""
    model = load(model_with(body, opset))
    graph = Graph(model)
    shape = graph.shape(graph.main.values["r"])
    assert shape is None or not any(isinstance(size, int) and size < 0 for size in shape)
    macs(model.proto)


@pytest.mark.parametrize("opset", [11, 17])
def test_other_sizes(opset):
    """They are what they were: of Slices of data, and of Slices of lists of sizes."""
    lists = "s = Shape (x) t = Slice (s, two, four) o = ConstantOfShape (t) "
    model = model_with(f"{lists} v = MaxPool <kernel_shape = [3, 3]> (x) {CUT}", opset)
    model.graph.initializer.append(onnx.helper.make_tensor("four", onnx.TensorProto.INT64, [1], [4]))
    plain = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    guarded = onnx.shape_inference.infer_shapes(inferable(model).data, data_prop=True).graph.value_info
    types = {entry.name: entry.type for entry in guarded}
    assert {entry.name: types[entry.name] for entry in plain} == {entry.name: entry.type for entry in plain}
    assert [dim.dim_value for dim in types["r"].tensor_type.shape.dim] == [1, 1, 2, 6]


DEADLY = {
    "no-type": 't = own.Unknown (x) r = RegexFullMatch <pattern = "a"> (t)',
    "eye": "r = EyeLike (bare)",
    "labels": "r = ai.onnx.ml.LabelEncoder <default_int64 = 1> (bare)",
    "batch": "i = Constant <value = int64[1,1] {0}> () r = GatherND <batch_dims = -5> (x, i)",
    "long-declared": "r = Size (long)",
    "long-computed": "t = Reshape (many, flat) r = Mul (t, one)",
    "long-expanded": "t = Expand (one, flood) r = Add (t, t)",
}


@pytest.mark.parametrize("body", DEADLY.values(), ids=DEADLY.keys())
def test_deadly_models(body, capfd):
    """At what ends the process, or lists as many sizes as there are elements, it does not end, and says nothing."""
    text = f"""<ir_version: 8, opset_import: ["": 20, "ai.onnx.ml": 2, "own": 1]>
        g (float[3,2,8,1] x, float[1099511627776] long, float[1,3,1048576,1048576] many) => (q, r)
        <int64[1] flat = {{-1}}, float[1] one = {{1}}, int64[1] flood = {{1099511627776}}>
        {{ {body} q = Relu (x) }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.input.add(name="bare")
    graph = Graph(load(proto))
    shape = graph.shape(graph.main.values["q"])
    assert shape == (3, 2, 8, 1) if "t = " in body and "own" not in body else shape in (None, (3, 2, 8, 1))
    macs(proto)
    assert not capfd.readouterr().err


NODES = {
    "batch": (make_node("GatherND", ["x", "i"], ["y"], batch_dims=-5), 17, {"x": [3, 2, 8, 1], "i": [1, 1]}),
    "axis": (make_node("LayerNormalization", ["x", "x"], ["y", "m"], axis=1 << 31), 17, {"x": [1, 8]}),
    "equation": (make_node("Einsum", ["x", "i"], ["y"], equation="((("), 17, {"x": [], "i": []}),
    "long": (make_node("Expand", ["x", "i"], ["y"]), 8, {"x": [1], "i": [1 << 40]}),
}


@pytest.mark.parametrize(("node", "opset", "shapes"), NODES.values(), ids=NODES.keys())
def test_deadly_operators(node, opset, shapes, monkeypatch):
    """Asked for one operator alone, as for a shape that a Reshape computes, inference dies of the same."""
    monkeypatch.setattr(inference, "_SECONDS", 0.1)
    kinds = {"x": TensorProto.FLOAT, "i": TensorProto.INT64}
    types = {name: make_tensor_type_proto(kinds[name], shape) for name, shape in shapes.items()}
    assert types_made(node, opset, types, {}) == {}


def test_a_usual_operator_needs_no_process(monkeypatch):
    """Not even a Concat of sizes, each of which is a list."""
    monkeypatch.setattr(os, "fork", pytest.fail)
    size = make_tensor_type_proto(TensorProto.INT64, [1])
    kinds = types_made(make_node("Concat", ["a", "b"], ["y"], axis=0), 17, {"a": size, "b": size}, {})
    assert kinds["y"].tensor_type.shape.dim[0].dim_value == 2


def test_operators_that_are_alike_are_inferred_once(monkeypatch):
    """Under other names, too; with another attribute, another type or another number they are others."""
    asked = []
    infer = onnx.shape_inference.infer_node_outputs
    monkeypatch.setattr(onnx.shape_inference, "infer_node_outputs", lambda *given: asked.append(1) or infer(*given))
    inference._inferred.cache_clear()

    def found(x="x", y="y", shape=(2, 6), target=(3, 4), **attributes):
        node = make_node("Reshape", [x, "t"], [y], name=x, **attributes)
        types = {x: make_tensor_type_proto(1, shape), "t": make_tensor_type_proto(7, [len(target)])}
        data = {"t": numpy_helper.from_array(np.array(target))}
        return [dim.dim_value for dim in types_made(node, 17, types, data)[y].tensor_type.shape.dim]

    assert [found(), found("a", "b"), len(asked)] == [[3, 4], [3, 4], 1]
    assert [found(target=(4, 3)), found(shape=(4, 3)), found(allowzero=1), len(asked)] == [[4, 3], [3, 4], [3, 4], 4]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no copy of the process")
def test_what_does_not_end_is_ended_by_the_system(monkeypatch):
    """When its CPU time is over: code in C does not look at the clock."""
    monkeypatch.setattr(inference, "_SECONDS", 0.05)
    with pytest.raises(Exhausted, match="was killed"):
        apart(lambda: sum(itertools.repeat(0)), 0)
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
