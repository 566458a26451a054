"""`--fold-norms`: scale and bias of a norm go into all that reads it, or nothing does; the norm stays."""

import numpy as np
import pytest
from helpers import assert_close, assert_same_interface, feeds_of, folded, model_of, run
from onnx import numpy_helper

from bnfold.folding.record import Outcome
from bnfold.folding.told import besides
from bnfold.model_io import load
from bnfold.reasons import Reason
from bnfold.verification import verify

X = "float[N, 5, 8] x"
LAYER = "[norm] n = LayerNormalization (x, {g: 8}, {b: 8})"
QKV = """
    q = MatMul (n, {wq: 8, 8}) qb = Add (q, {bq: 8})
    k = MatMul (n, {wk: 8, 8}) kb = Add (k, {bk: 8})
    qk = Mul (qb, kb)
"""


def model(body, inputs=X, output="y", opset=17, dtype="double"):
    text = f'<ir_version: 10, opset_import: ["": {opset}]> g ({inputs}) => (T[rank] {output}) {{ {body} }}'
    made = model_of(text.replace("float[N", "T[N"), dtype)
    made.graph.output[0].type.tensor_type.ClearField("shape")
    return made


def values(proto):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def norms_of(proto):
    """The parameters of each norm."""
    held = values(proto)
    return [[held[name] for name in node.input[1:]] for node in proto.graph.node if "Normalization" in node.op_type]


IMAGE = "float[N, 4, 6, 5] x"
CONV = "y = Conv (n, {w: 3, 4, 1, 1}, {c: 3})"
GOES = {
    "layer": (f"{LAYER} {QKV} y = Relu (qk)", X, 17),
    "one": (f"{LAYER} m = MatMul (n, {{w: 8, 3}}) y = Add (m, {{c: 3}})", X, 17),
    "gemm": ("[norm] n = LayerNormalization (x, {g: 8}, {b: 8}) y = Gemm (n, {w: 8, 3}, {c: 3})", "float[N, 8] x", 17),
    "no-bias": ("[norm] n = LayerNormalization (x, {g: 8}) y = MatMul (n, {w: 8, 3})", X, 17),
    "rms": ("[norm] n = RMSNormalization (x, {g: 8}) y = MatMul (n, {w: 8, 3})", X, 23),
    "instance": (f"[norm] n = InstanceNormalization (x, {{g: 4}}, {{b: 4}}) {CONV}", IMAGE, 17),
    "group": (f"[norm] n = GroupNormalization <num_groups = 2> (x, {{g: 4}}, {{b: 4}}) {CONV}", IMAGE, 21),
    "group-18": (f"[norm] n = GroupNormalization <num_groups = 2> (x, {{g: 2}}, {{b: 2}}) {CONV}", IMAGE, 18),
    "permuted": (
        f"t = Transpose <perm = [0, 2, 3, 1]> (x) [norm] m = LayerNormalization (t, {{g: 4}}, {{b: 4}})"
        f"n = Transpose <perm = [0, 3, 1, 2]> (m) {CONV}",
        IMAGE,
        17,
    ),
}


@pytest.mark.parametrize(("body", "inputs", "opset"), GOES.values(), ids=GOES)
def test_it_goes(body, inputs, opset):
    """The norm stays with a scale of 1 and no bias that is not 0, and the model computes what it computed."""
    before = model(body, inputs, opset=opset)
    plan, after = folded(before, fold_norms=True)
    assert [entry.outcome for entry in plan.entries if entry.node == "norm"] == [Outcome.CLEARED]
    assert besides(plan)[-1] == "scale and bias of 1 of 1 norm folded"
    for scale, *bias in norms_of(after):
        assert (scale == 1).all()
        assert not any(array.any() for array in bias)
        assert bias == [] or "Layer" not in body
    assert len(after.graph.node) == len(before.graph.node)
    assert_same_interface(before, after)
    for feeds in feeds_of(before):
        assert_close(run(after, feeds)["y"], run(before, feeds)["y"], 1e-12)
    assert verify(before, after, strict=opset != 18)  # which ONNX Runtime has no GroupNormalization of
    assert not any(entry.is_norm for entry in folded(before)[0].entries)
    again, same = folded(after, fold_norms=True)
    assert not again.changes
    assert same == after


STAYS = {
    "residual": (f"{LAYER} m = MatMul (n, {{w: 8, 8}}) y = Add (m, n)", X, Reason.GRAPH_OUTPUT),
    "residual-2": (f"{LAYER} m = MatMul (n, {{w: 8, 8}}) a = Add (m, x) r = Add (a, n) y = Relu (r)", X, None),
    "output": (LAYER.replace("n =", "y ="), X, Reason.GRAPH_OUTPUT),
    "function": (f"{LAYER} s = Sigmoid (n) y = MatMul (s, {{w: 8, 8}})", X, Reason.NO_RULE),
    "one-reader": (f"{LAYER} m = MatMul (n, {{w: 8, 8}}) s = Sigmoid (n) y = Mul (m, s)", X, Reason.NO_RULE),
    "padding": (
        "[norm] n = InstanceNormalization (x, {g: 4}, {b: 4}) y = Conv <pads = [1, 1, 1, 1]> (n, {w: 3, 4, 3, 3})",
        IMAGE,
        Reason.SHIFT_MEETS_PADDING,
    ),
    "two-axes": (
        "[norm] n = LayerNormalization <axis = 1> (x, {g: 5, 8}) y = MatMul (n, {w: 8, 8})",
        X,
        Reason.WRONG_AXIS,
    ),
    "weight-computed": (f"{LAYER} y = MatMul (n, v)", f"{X}, float[N, 8, 8] v", Reason.NOT_CONSTANT),
}


@pytest.mark.parametrize(("body", "inputs", "reason"), STAYS.values(), ids=STAYS)
def test_it_stays(body, inputs, reason):
    """All readers take it, or nothing changes; the reason is told."""
    before = model(body, inputs)
    plan, after = folded(before, fold_norms=True)
    (entry,) = (entry for entry in plan.entries if entry.is_norm)
    assert entry.outcome is Outcome.KEPT
    assert [refusal.reason for refusal in entry.refusals] == [reason or entry.refusals[0].reason]
    assert besides(plan)[-1] == "scale and bias of 0 of 1 norm folded"
    assert not any("norm" in told for told in besides(folded(before)[0]))
    assert after == before


def test_a_norm_that_is_kept():
    """By name, as other nodes."""
    plan, _ = folded(model(GOES["layer"][0]), fold_norms=True, keep=["norm"])
    assert [entry.refusals[0].reason for entry in plan.entries if entry.is_norm] == [Reason.KEPT_BY_NAME]


def test_nothing_to_shed():
    """A norm with a scale of 1 and a bias of 0 is no entry."""
    body = GOES["one"][0].replace("{g: 8}", "{g: 8 one}").replace("{b: 8}", "{b: 8 zero}")
    plan, _ = folded(model(body), fold_norms=True)
    assert not any(entry.is_norm for entry in plan.entries)


def test_a_weight_that_another_reads():
    """It is copied for the reader of the norm, if the model may grow so; the other keeps its own."""
    body = f"{LAYER} y1 = MatMul (n, {{w: 8, 64}}) y2 = MatMul (x, w) y = Add (y1, y2)"
    for growth, outcome in (("200%", Outcome.CLEARED), (0, Outcome.KEPT)):
        plan, _ = folded(model(body), fold_norms=True, max_growth=growth)
        assert next(entry.outcome for entry in plan.entries if entry.is_norm) is outcome


def test_what_has_no_bias_gets_one():
    """All of the norm's bias goes, at the price of an Add for each MatMul; the Adds belong to its entry."""
    before = model(f"{LAYER} a = MatMul (n, {{wa: 8, 8}}) c = MatMul (n, {{wc: 8, 8}}) y = Mul (a, c)")
    plan, after = folded(before, fold_norms=True)
    (entry,) = plan.entries
    assert [left.op_type for left in entry.left] == ["Add", "Add"]
    assert plan.nodes_after == plan.nodes_before + 2
    again, _ = folded(after, fold_norms=True)
    assert not again.changes


def test_what_stands_behind_it_goes_along():
    """A Mul behind the norm first goes into its scale, and then all of it into the readers."""
    before = model(f"{LAYER.replace('n =', 'm =')} [mul] n = Mul (m, {{s: 8}}) {QKV} y = Relu (qk)")
    plan, after = folded(before, fold_norms=True)
    assert {entry.node: entry.outcome.value for entry in plan.entries if entry.node in ("norm", "mul")} == {
        "mul": "folded",
        "norm": "cleared",
    }
    (feeds,) = feeds_of(before)
    assert_close(run(after, feeds)["y"], run(before, feeds)["y"], 1e-12)


@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_narrow_types(dtype):
    """Each weight is rounded once."""
    before = model(GOES["one"][0], dtype=dtype)
    plan, after = folded(before, fold_norms=True)
    assert plan.count_norms(Outcome.CLEARED) == 1
    old, new = values(before), values(after)
    exact = old["w"].astype(np.float64) * old["g"].astype(np.float64)[:, None]
    assert (new["w_folded"] == exact.astype(old["w"].dtype)).all()
    assert verify(before, after)


def test_onnxruntimes_own_norm():
    """SimplifiedLayerNormalization is RMSNormalization in an opset that has none, in runs and in float64."""
    body = GOES["rms"][0].replace("RMSNormalization", "SimplifiedLayerNormalization")
    before = model(body, dtype="float")
    plan, after = folded(before, fold_norms=True)
    assert plan.count_norms(Outcome.CLEARED) == 1
    result = verify(before, after, strict=False)
    assert result
    assert result.complete
    wrong = load(after).proto
    next(tensor for tensor in wrong.graph.initializer if tensor.name == "w_folded").CopyFrom(
        numpy_helper.from_array(values(before)["w"], "w_folded")
    )
    assert verify(before, wrong, strict=False).is_different


SPELT_OUT = """
    mean = ReduceMean <axes = [-1]> (x) c = Sub (x, mean) p = Pow (c, two) v = ReduceMean <axes = [-1]> (p)
    e = Add (v, {epsilon: 1 positive}) r = Sqrt (e) d = Div (c, r)
    [scale] m = Mul (d, {g: 8}) [shift] n = Add (m, {b: 8})
"""


@pytest.mark.parametrize(
    ("behind", "outcome"),
    [
        pytest.param("q = MatMul (n, {w: 8, 8}) y = Add (q, {bq: 8})", Outcome.FOLDED, id="linear"),
        pytest.param("q = MatMul (n, {w: 8, 8}) a = Add (q, {bq: 8}) y = Add (a, n)", Outcome.KEPT, id="residual"),
    ],
)
def test_spelt_out(behind, outcome):
    """Its Mul and Add are affines like others then; without the option they stay, for the sake of runtimes."""
    before = model(f"two = Constant <value = T {{2}}> () {SPELT_OUT} {behind}".replace("T {2}", "double {2.0}"))
    assert not folded(before)[0].changes
    plan, after = folded(before, fold_norms=True)
    assert {entry.node: entry.outcome for entry in plan.entries if entry.node in ("scale", "shift")} == {
        "scale": outcome,
        "shift": outcome,
    }
    (feeds,) = feeds_of(before)
    assert_close(run(after, feeds)["y"], run(before, feeds)["y"], 1e-12)


def test_other_patterns_stay():
    """`--fold-norms` is for norms alone; a Gelu that is spelt out is none."""
    gelu = "d = Div (x, root) e = Erf (d) a = Add (e, one) u = Mul (x, a) h = Mul (u, half) y = MatMul (h, {w: 8, 8})"
    numbers = {"root": 2**0.5, "one": 1.0, "half": 0.5}
    constants = (f"{name} = Constant <value = double {{{number}}}> ()" for name, number in numbers.items())
    before = model(f"{' '.join(constants)} {gelu}")
    assert not folded(before, fold_norms=True)[0].changes
    assert folded(before, inside_patterns=True)[0].changes
