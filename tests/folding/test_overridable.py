"""What a caller may override decides no fold: not as a weight, and not as a size, an axis or a border either."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import assert_close, folded, model_of, run
from onnx import ModelProto

from bnfold.graph import Graph
from bnfold.model_io import load


@dataclass(frozen=True)
class Setting:
    """An operator with a setting `s`, between a Conv and an affine that means other channels with another setting."""

    op: str
    default: Any
    other: Any
    affine: str = "y = Mul (r, {k: 1, 4, 1, 1 positive})"
    x: tuple[int, ...] = (4, 4, 4, 4)

    def model(self, *inputs: str) -> ModelProto:
        """The setting is an initializer, as the weights are; those named are inputs as well."""
        text = f"g (float{list(self.x)} x) => (float y) {{ c = Conv (x, {{w: 4, 4, 1, 1}}) {self.op} {self.affine} }}"
        model = model_of(f'<ir_version: 8, opset_import: ["": 18]> {text}')
        model.graph.output[0].type.tensor_type.ClearField("shape")
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(self.default), "s"))
        return with_inputs(model, inputs)


def with_inputs(model: ModelProto, names: Container[str]) -> ModelProto:
    """The model, with some of its initializers as inputs."""
    for tensor in model.graph.initializer:
        if tensor.name in names:
            entry = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.append(entry)
    return model


LAST = "y = Mul (r, {k: 4 positive})"
SETTINGS = {
    "reshape": Setting("r = Reshape (c, s)", [1, 4, 4, 1], [4, 4, 1, 1], x=(1, 4, 4, 1)),
    "reshape-before-another": Setting(
        "q = Reshape (c, s) r = GlobalAveragePool (q)", [1, 4, 4, 1], [4, 4, 1, 1], x=(1, 4, 4, 1)
    ),
    "expand": Setting("r = Expand (c, s)", [1, 4, 2, 2], [3, 4, 2, 1], x=(1, 4, 1, 1)),
    "resize-sizes": Setting('r = Resize (c, "", "", s)', [4, 4, 2, 2], [4, 1, 4, 4]),
    "resize-scales": Setting('r = Resize (c, "", s)', np.float32([1, 1, 2, 2]), np.float32([1, 0.25, 1, 1])),
    "slice": Setting("r = Slice (c, {zero: 1 int64 zero}, {two: 1 int64 one}, s)", [2], [1]),
    "tile": Setting("p = GlobalAveragePool (c) r = Tile (p, s)", [1, 1, 4, 1], [1, 1, 1, 4]),
    "pad": Setting("p = GlobalAveragePool (c) r = Pad (p, s)", [0, 0, 1, 1, 0, 0, 1, 1], [3, 0, 0, 0, 0, 0, 0, 0]),
    "squeeze": Setting("r = Squeeze (c, s)", [2], [0], "y = Mul (r, {k: 4, 1 positive})", (1, 4, 1, 4)),
    "unsqueeze": Setting("r = Unsqueeze (c, s)", [0], [2], "y = Mul (r, {k: 4, 1, 1 positive})"),
    "reduce-mean": Setting("r = ReduceMean <keepdims = 0> (c, s)", [2], [1], "y = Mul (r, {k: 4, 1 positive})"),
    "reduce-sum": Setting("r = ReduceSum (c, s)", [2, 3], [1, 3], "y = Add (r, {k: 1, 4, 1, 1})"),
    "reduce-max": Setting("r = ReduceMax (c, s)", [2], [1]),
    "split": Setting("r, q = Split <axis = 1> (c, s)", [2, 2], [1, 3], "y = Mul (r, {k: 1, 2, 1, 1 positive})"),
    "gather": Setting("r = Gather <axis = 1> (c, s)", [3, 2, 1, 0], [0, 1, 2, 3]),
    "clip": Setting("r = Clip (c, s)", np.float32(0), np.float32(1)),
}
USED = [name for name in SETTINGS if name != "slice"]  # of which no fold makes use as it stands


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_a_caller_overrides_counts(name):
    """The folded model computes what the model computed, with the default and with another setting."""
    setting = SETTINGS[name]
    model = setting.model("s")
    _, result = folded(model)
    x = np.random.default_rng(0).normal(size=setting.x).astype(np.float32)
    for given in (setting.default, setting.other):
        feeds = {"x": x, "s": np.asarray(given)}
        assert_close(run(result, feeds)["y"], run(model, feeds)["y"], 1e-5)


@pytest.mark.parametrize("name", USED)
def test_a_setting_that_nobody_can_override_is_made_use_of(name):
    """It is a plain initializer, or the user says that it is never overridden, or no caller could."""
    plain, given, old = (SETTINGS[name].model(*inputs) for inputs in ("", "s", "swk"))
    old.ir_version = 3
    for model, options in ((plain, {}), (given, {"assume_constant": True}), (old, {})):
        _, result = folded(model, **options)
        assert len(result.graph.node) < len(model.graph.node)


@pytest.mark.parametrize("name", ["reshape", "resize-sizes"])
def test_a_setting_that_training_changes_is_none(name):
    """`training_info` names an initializer that a training step assigns to."""
    model = SETTINGS[name].model()
    binding = model.training_info.add().update_binding.add()
    binding.key = "s"
    _, result = folded(model)
    assert result == model


def test_of_a_default_the_declared_shape_holds():
    """A caller may give any tensor that the declaration allows; before IR version 4 the initializer is what holds."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[n, 4] x, float[a, 4] s) => (float y) <float[2, 4] s = {1, 2, 3, 4, 5, 6, 7, 8}> { y = Add (x, s) }"""
    model = model_of(text)
    assert shape_of(model, "s") == ("a", 4)
    assert shape_of(model, "s", assume_constant=True) == (2, 4)
    model.ir_version = 3
    assert shape_of(model, "s") == (2, 4)


def test_of_what_training_changes_the_shape_holds():
    """A training step assigns a tensor of the same shape and type."""
    model = model_of("""<ir_version: 8, opset_import: ["": 17]>
    g (float[2, 4] x) => (float y) { z = MatMul (x, {w: 4, 3}) y = Relu (z) }""")
    binding = model.training_info.add().update_binding.add()
    binding.key = "w"
    assert shape_of(model, "w") == (4, 3)
    assert shape_of(model, "z") == (2, 3)


def shape_of(model: ModelProto, name: str, **options: Any) -> object:
    graph = Graph(load(model), **options)
    return graph.shape(graph.main.values[name])


LOOP = """<ir_version: 8, opset_import: ["": 17]>
g (float[1, 4, 4, 1] x, int64 n, bool t) => (int64[4] last, float[a, b, d, e, f] y) {
    last, y = Loop (n, t, {s: 4 int64}) <body = b (int64 i, bool going, int64[4] size)
            => (bool on, int64[4] size_out, float[a, b, d, e] r) <int64[4] size = {1, 4, 4, 1}> {
        on = Identity (going)
        size_out = Identity (size)
        c = Conv (x, {w: 4, 4, 1, 1})
        z = Reshape (c, size)
        r = Mul (z, {k: 1, 4, 1, 1 positive}) }> }"""


@pytest.mark.parametrize("options", [{}, {"assume_constant": True}])
def test_what_a_loop_gives_is_no_constant(options):
    """An initializer that is an input of a Loop's body never holds, in old models either: the Loop gives another."""
    model = with_inputs(model_of(LOOP), ("s", "w", "k"))
    model.ir_version = 3
    _, result = folded(model, **options)
    assert result == model


BRANCHES = """<ir_version: 8, opset_import: ["": 17]>
g (float[1, 4, 4, 1] x, bool p, int64[4] s) => (float[a, b, d, e] y) <int64[4] s = {1, 4, 4, 1}> {
    q = If (p) <
        then_branch = t () => (float[1, 4, 4, 1] o) { c = Conv (x, {w: 4, 4, 1, 1}) o = Reshape (c, s) },
        else_branch = f () => (float[1, 4, 4, 1] o) { o = Conv (x, {v: 4, 4, 1, 1}) }>
    y = Mul (q, {k: 1, 4, 1, 1 positive}) }"""


def test_what_a_body_says_of_its_outputs_is_a_claim():
    """It stands beside a Reshape whose target a caller may override."""
    model = model_of(BRANCHES)
    _, result = folded(model)
    feeds = {"x": np.ones((1, 4, 4, 1), np.float32), "p": np.array(True), "s": np.array([4, 4, 1, 1])}
    assert_close(run(result, feeds)["y"], run(model, feeds)["y"], 1e-5)


@pytest.mark.parametrize(("options", "stays"), [({}, True), ({"assume_constant": True}, False)])
def test_what_a_caller_may_give_stays_an_input(options, stays):
    """Also where nothing reads it any more: of the bias that it makes, its shape was all that counted."""
    model = model_of(
        """<ir_version: 8, opset_import: ["": 18]> g (float[2, 3, 5, 5] x) => (float[2, 4, 5, 5] y) {
            zero = Constant <value_float = 0.5> () sizes = Shape ({given: 4}) bias = Expand (zero, sizes)
            c = Conv (x, {w: 4, 3, 1, 1}, bias) y = BatchNormalization (c, {bn: 4})
        }"""
    )
    _, result = folded(with_inputs(model, ["given"]), **options)
    assert [node.op_type for node in result.graph.node] == ["Conv"]
    assert ("given" in {entry.name for entry in result.graph.input}) is stays
    assert ("given" in {tensor.name for tensor in result.graph.initializer}) is stays
