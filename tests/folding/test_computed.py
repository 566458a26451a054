"""A BatchNormalization in training mode that reads a constant: its statistics are those of the constant."""

import numpy as np
import pytest
from helpers import Array, folded, model_of
from onnx import ModelProto, numpy_helper

from bnfold.folding.record import Outcome
from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.reasons import Reason
from bnfold.verification import verify

PARAMETERS = "{raw: 1, 4, 27}, {gain: 4}, {bias: 4}, {mean: 4}, {var: 4 positive}"
TRAINING = f"[bn] s = BatchNormalization <training_mode = 1, epsilon = 0.125> ({PARAMETERS})"
CONV = "[shape] w = Reshape (s, sizes) [conv] y = Conv (x, w)"
BODY = f"{TRAINING} {CONV}"


def model(body: str = BODY, opset: int = 17, dtype: str = "float", outputs: str = "T[N, 4, 6, 6] y") -> ModelProto:
    made = model_of(
        f"""<ir_version: 8, opset_import: ["": {opset}]>
        g (T[N, 3, 8, 8] x) => ({outputs}) {{ sizes = Constant <value_ints = [4, 3, 3, 3]> () {body} }}""",
        dtype,
    )
    del made.graph.output[-1].type.tensor_type.shape.dim[:]
    made.graph.output[-1].type.tensor_type.ClearField("shape")
    return made


def values(proto: ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def standardised(held: dict[str, Array], epsilon: float = 0.125) -> Array:
    """By the definition, in float64."""
    raw, gain, bias = (held[name].astype(np.float64) for name in ("raw", "gain", "bias"))
    mean, var = raw.mean((0, 2), keepdims=True), raw.var((0, 2), keepdims=True)
    exact = gain[:, None] * (raw - mean) / np.sqrt(var + epsilon) + bias[:, None]
    return exact.reshape(4, 3, 3, 3)


@pytest.mark.parametrize("dtype", ["float", "float16"])
@pytest.mark.parametrize(
    ("old", "new", "opset"),
    [
        pytest.param("", "", 17, id="one-output"),
        pytest.param("s =", "s, m, v =", 15, id="three-outputs"),
        pytest.param("s =", "s, m, v, sm, sv =", 13, id="five-outputs"),
        pytest.param("{mean: 4}, {var: 4 positive}", "x1, x1", 17, id="statistics-computed"),
        pytest.param("4, 27}", "4, 27 float16}", 17, id="types-mixed"),
    ],
)
def test_it_folds_into_the_weight(old, new, opset, dtype):
    """Stored once, rounded once, and nothing is left of it; the statistics that come in do not matter."""
    body = BODY.replace(old, new)
    body = body.replace("training_mode = 1, ", "") if opset < 14 else body
    before = model(("x1 = ReduceMean <axes = [0, 2, 3]> (x)" if "x1" in body else "") + body, opset, dtype)
    plan, after = folded(before)
    (entry,) = plan.entries
    assert entry.outcome is Outcome.FOLDED
    assert (entry.into, entry.through) == (("conv",), ("shape",))
    assert [node.op_type for node in after.graph.node] == ["Conv"]
    (weight,) = values(after).values()
    assert weight.dtype == values(before)["raw"].dtype
    np.testing.assert_array_equal(weight, standardised(values(before)).astype(weight.dtype))
    if dtype == "float" and "x1" not in body and "float16" not in body:
        assert verify(before, after)
    assert not folded(after)[0].changes


def test_two_readers_share_what_is_stored():
    """One constant, whatever its readers are."""
    plan, after = folded(model(f"{BODY.replace('y =', 'z =')} c = Conv (x, w) y = Mul (z, c)"))
    assert [node.op_type for node in after.graph.node] == ["Conv", "Conv", "Mul"]
    assert len(values(after)) == 1
    assert plan.entries[0].into == ("conv", "c")


@pytest.mark.parametrize(
    ("body", "outputs", "options", "reason"),
    [
        pytest.param(BODY.replace("{raw: 1, 4, 27}", "r").replace(TRAINING[:4], "r = Reshape (x, i) [bn]"), None, {},
            Reason.TRAINING_MODE, id="computed"),
        pytest.param(BODY, "T[4, 3, 3, 3] w, T[N] y", {}, Reason.GRAPH_OUTPUT, id="weight-is-output"),
        pytest.param(BODY.replace("s =", "s, m, v ="), "T[4] m, T[N] y", {}, Reason.EXTRA_OUTPUTS, id="more"),
        pytest.param(BODY, None, {"keep": ["bn"]}, Reason.KEPT_BY_NAME, id="kept"),
        pytest.param(BODY, None, {"keep": ["conv"]}, Reason.KEPT_BY_NAME, id="reader-kept"),
        pytest.param(f"{BODY.replace('y =', 'z =')} p = ReduceSum (raw) y = Mul (z, p)", None, {"max_growth": 0},
            Reason.GROWTH, id="raw-is-read"),
    ],
)  # fmt: skip
def test_it_stays(body, outputs, options, reason):
    """Each breaks one precondition, and then nothing changes."""
    body = f"i = Constant <value_ints = [-1, 4, 27]> () {body}" if "(x, i)" in body else body
    before = model(body, outputs=outputs or "T[N] y")
    plan, after = folded(before, **options)
    entry = next(entry for entry in plan.entries if entry.node == "bn")
    assert entry.outcome is Outcome.KEPT
    assert entry.refusals[0].reason is reason
    assert [node.op_type for node in after.graph.node].count("BatchNormalization") == 1


@pytest.mark.parametrize(
    ("parameters", "is_constant"),
    [
        pytest.param("{raw: 2, 4, 3}, {gain: 4}, {bias: 4}", True, id="three-axes"),
        pytest.param("{raw: 5, 4}, {gain: 4}, {bias: 4}", True, id="two-axes"),
        pytest.param("{raw: 4}, {gain: 4}, {bias: 4}", False, id="one-axis"),
        pytest.param("{raw: 2, 4}, {gain: 1}, {bias: 4}", False, id="one-gain"),
        pytest.param("{raw: 2, 4}, {gain: 4}, {bias: 2}", False, id="other-bias"),
        pytest.param("{raw: 0, 4, 3}, {gain: 4}, {bias: 4}", False, id="nothing"),
    ],
)
def test_what_is_evaluated(parameters, is_constant):
    """Values that fit each other."""
    body = f"s = BatchNormalization <training_mode = 1> ({parameters}, {{mean: 4}}, {{var: 4}}) y = Mul (x, s)"
    graph = Graph(load(model(body)))
    found = graph.constant(graph.main.values["s"])
    assert (found is not None) == is_constant
    if found is not None:
        raw, gain, bias = (graph.constant(graph.main.values[name]).float64() for name in ("raw", "gain", "bias"))
        rows = np.moveaxis(raw, 1, 0).reshape(4, -1)
        flat = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + np.float32(1e-5))
        expected = np.moveaxis(
            (flat * gain[:, None] + bias[:, None]).reshape(4, *np.moveaxis(raw, 1, 0).shape[1:]), 0, 1
        )
        np.testing.assert_allclose(found.float64(), expected, rtol=1e-12)


def test_in_inference_mode():
    """As `calibrate` leaves it: with the statistics that it is given."""
    before = model(BODY.replace("training_mode = 1, ", ""))
    plan, after = folded(before)
    assert plan.entries[0].outcome is Outcome.FOLDED
    held = values(before)
    gain, bias, mean, var = (held[name].astype(np.float64)[:, None] for name in ("gain", "bias", "mean", "var"))
    exact = gain * (held["raw"] - mean) / np.sqrt(var + 0.125) + bias
    (weight,) = values(after).values()
    np.testing.assert_array_equal(weight, exact.astype(np.float32).reshape(4, 3, 3, 3))
    assert verify(before, after)


def test_no_variance():
    """A root of nothing positive is no number, and neither is what a weight without spread is divided to."""
    given = BODY.replace("training_mode = 1, ", "").replace("var: 4 positive", "var: 4 negative")
    own = BODY.replace("raw: 1, 4, 27", "raw: 1, 4, 27 zero").replace("0.125", "0.0")
    for body in (given, own):
        plan, after = folded(model(body))
        assert plan.entries[0].refusals[0].reason is Reason.NOT_FINITE
        assert after.graph.node[1].op_type == "BatchNormalization"
