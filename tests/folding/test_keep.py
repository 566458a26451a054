"""A node that is kept is there afterwards, unchanged, and takes part in what the model computes as it did before."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers import (
    Array,
    Feeds,
    all_nodes,
    assert_close,
    assert_nothing_dead,
    feeds_of,
    folded,
    is_there,
    label,
    model_of,
    told,
)
from onnx import ModelProto, numpy_helper

import bnfold
from bnfold.folding import Leftover
from bnfold.folding.keep import mark_kept
from bnfold.folding.record import Outcome
from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.reasons import Reason, Refusal

OPSETS = '<ir_version: 8, opset_import: ["": 17, "my": 1]>'


def graph(body: str, inputs: str = "float[2, 3, 6, 6] x", outputs: str = "float[N, C, H, W] y", after: str = ""):
    constants = "<int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}, float one = {1}, float two = {2}>"
    return model_of(f"{OPSETS} g ({inputs}) => ({outputs}) {constants} {{ {body} }} {after}")


def quantized(body: str) -> ModelProto:
    """A model in float32 with the initializers `q`, int8 for a weight, `f`, a float weight, and `s`, a step."""
    model = model_of(f"{OPSETS} g (float[2, 3, 6, 6] x) => (float[N, C, H, W] y) {{ {body} }}")
    random = np.random.default_rng(0)
    integers = random.integers(-100, 100, (3, 3, 1, 1)).astype(np.int8)
    for name, values in {
        "q": integers,
        "f": integers * np.float32(0.01),
        "s": np.float32(0.01),
        "z": np.int8(0),
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def output(model: ModelProto, feeds: Feeds) -> Array:
    """What ONNX Runtime says, which knows functions that call functions."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], feeds)[0])


IF = """
    [cond] y = If (which) <
        then_branch = then () => (float[N, C, H, W] p) { [conv] a = Conv (x, v) [inner] p = Relu (a) },
        else_branch = else () => (float[N, C, H, W] q) { [conv2] b = Conv (x, w) [inner2] q = Relu (b) }
    >
"""
WEIGHTS = "[w] w = Identity ({w0: 3, 3, 1, 1}) [v] v = Identity ({v0: 3, 3, 1, 1})"
FUNCTION = """
    <opset_import: ["": 17], domain: "my">
    Block (x, w, g, b, m, v) => (y) {
        [conv] c = Conv (x, w)
        [bn] y = BatchNormalization (c, g, b, m, v)
    }
"""
OUTER = """
    <opset_import: ["": 17, "my": 1], domain: "my">
    Outer (x, w, g, b, m, v) => (y) {
        [call] h = my.Block (x, w, g, b, m, v)
        [outer_relu] y = Relu (h)
    }
"""
CALL = "y = my.Block (x, {w: 3, 3, 1, 1}, {bn: 3})"

# name: the model, the nodes to keep; each model folds if nothing is kept, and does something to every one of these
CASES: dict[str, tuple[ModelProto, str]] = {
    "add behind a MatMul": (
        graph(
            "b = BatchNormalization (x, {bn: 3}) t = Transpose <perm = [0, 2, 3, 1]> (b) "
            "m = MatMul (t, {w: 3, 5}) [kept] y = Add (m, {c: 5})"
        ),
        "kept",
    ),
    "transpose of a weight": (
        graph(
            "[kept] w = Transpose <perm = [1, 0, 2, 3]> ({w0: 3, 3, 1, 1}) c = Conv (x, w) "
            "y = BatchNormalization (c, {bn: 3})"
        ),
        "kept",
    ),
    "dequantization of a weight": (
        quantized("[kept] w = DequantizeLinear (q, s) c = Conv (x, w) y = BatchNormalization (c, {bn: 3})"),
        "kept",
    ),
    "transpose of a dequantized weight": (
        quantized(
            "d = DequantizeLinear (q, s) [kept] w = Transpose <perm = [1, 0, 2, 3]> (d) c = Conv (x, w) "
            "y = BatchNormalization (c, {bn: 3 unshifted})"
        ),
        "kept",
    ),
    "quantization of a weight": (
        quantized(
            "[kept] i = QuantizeLinear (f, s, z) w = DequantizeLinear (i, s, z) c = Conv (x, w) "
            "y = BatchNormalization (c, {bn: 3 unshifted})"
        ),
        "kept",
    ),
    "second operator above a weight": (
        graph(
            "[kept] v = Identity ({w0: 3, 3, 1, 1}) w = Transpose <perm = [1, 0, 2, 3]> (v) c = Conv (x, w) "
            "y = BatchNormalization (c, {bn: 3})"
        ),
        "kept",
    ),
    "constant node of a weight": (
        graph(
            "[kept] w = Constant <value = float[3, 3, 1, 1] {1, 2, 3, 4, 5, 6, 7, 8, 9}> () c = Conv (x, w) "
            "y = BatchNormalization (c, {bn: 3})"
        ),
        "kept",
    ),
    "constant node of a parameter": (
        graph(
            "[kept] s = Constant <value = float[3] {1, 2, 3}> () c = Conv (x, {w: 3, 3, 1, 1}) "
            "y = BatchNormalization (c, s, {b: 3}, {m: 3}, {v: 3 positive})"
        ),
        "kept",
    ),
    "identity of a parameter": (
        graph(
            "[kept] s = Identity ({s0: 3}) c = Conv (x, {w: 3, 3, 1, 1}) "
            "y = BatchNormalization (c, s, {b: 3}, {m: 3}, {v: 3 positive})"
        ),
        "kept",
    ),
    "relu above": (
        graph(
            "c = Conv (x, {w: 3, 3, 1, 1}) [kept] r = Relu (c) y = BatchNormalization (r, {bn: 3 positive unshifted})"
        ),
        "kept",
    ),
    "relu above a BatchNormalization that does nothing": (
        graph("[kept] r = Relu (x) y = Mul (r, {ones: 3, 1, 1 one})"),
        "kept",
    ),
    "relu below a BatchNormalization that does nothing": (
        graph("c = Conv (x, {w: 3, 3, 1, 1}) n = Mul (c, {ones: 3, 1, 1 one}) [kept] y = Relu (n)"),
        "kept",
    ),
    "shape of what would be renamed": (
        graph(
            "c = Conv (x, {w: 3, 3, 1, 1}) r = Relu (c) [kept] shape = Shape (r) "
            "y = BatchNormalization (r, {bn: 3 positive unshifted})",
            outputs="float[N, C, H, W] y, int64[4] shape",
        ),
        "kept",
    ),
    "shape of what would go": (
        graph(
            "r = Relu (x) b = BatchNormalization (r, {bn: 3}) [kept] shape = Shape (b) y = Conv (b, {w: 3, 3, 1, 1})",
            outputs="float[N, C, H, W] y, int64[4] shape",
        ),
        "kept",
    ),
    "partial sum": (
        graph(
            "a = Conv (x, {w: 3, 3, 1, 1}) r = Relu (x) [kept] s = Add (a, r) b = Conv (x, {v: 3, 3, 1, 1}) "
            "y = Add (s, b)"
        ),
        "kept",
    ),
    "conv that would be merged": (
        graph("[host] a = Conv (x, {w: 3, 3, 1, 1}) [guest] b = Conv (x, {v: 3, 3, 1, 1}) y = Add (a, b)"),
        "[hg]*t",
    ),
    "weight of a conv that would be merged": (
        graph(
            "[kept] w = Transpose <perm = [1, 0, 2, 3]> ({w0: 3, 3, 1, 1}) a = Conv (x, w) "
            "[kept2] v = Transpose <perm = [1, 0, 2, 3]> ({v0: 3, 3, 1, 1}) b = Conv (x, v) y = Add (a, b)"
        ),
        "kept*",
    ),
    "gate that a scale could pass": (
        graph(
            "c = Conv (x, {w: 3, 3, 1, 1}) s = Sigmoid (x) [kept] p = Mul (c, s) "
            "y = BatchNormalization (p, {bn: 3 unshifted})"
        ),
        "kept",
    ),
    "pad with another value": (
        graph("c = Conv (x, {w: 3, 3, 1, 1}) [kept] p = Pad (c, pads, one) y = Mul (p, two)"),
        "kept",
    ),
    "node in a branch": (
        graph(
            f"{WEIGHTS.replace('[w] w', 'w').replace('[v] v', 'v')} "
            f"{IF.replace('] y = If', '] h = If')} y = BatchNormalization (h, {{bn: 3 positive unshifted}})",
            inputs="bool which, float[2, 3, 6, 6] x",
        ),
        "inner",
    ),
    "whole If": (
        graph(
            f"w = Identity ({{w0: 3, 3, 1, 1}}) v = Identity ({{v0: 3, 3, 1, 1}}) "
            f"{IF.replace('p = Relu (a)', 'p = Mul (a, two)')}",
            inputs="bool which, float[2, 3, 6, 6] x",
        ),
        "cond",
    ),
    "If whose bodies would take an affine": (
        graph(
            "x = BatchNormalization (z, {bn: 3}) "
            f"w = Identity ({{w0: 3, 3, 1, 1}}) v = Identity ({{v0: 3, 3, 1, 1}}) {IF}",
            inputs="bool which, float[2, 3, 6, 6] z",
        ),
        "cond",
    ),
    "BatchNormalization in a function": (graph(CALL, after=FUNCTION), "bn"),
    "conv in a function": (graph(CALL, after=FUNCTION), "conv"),
    "call": (graph(CALL.replace("y =", "[kept] y ="), after=FUNCTION), "kept"),
    "call in a function": (graph(CALL.replace("Block", "Outer"), after=OUTER + FUNCTION), "call"),
    "call of a function with calls": (
        graph(CALL.replace("y = my.Block", "[kept] y = my.Outer"), after=OUTER + FUNCTION),
        "kept",
    ),
    "node in a called function": (graph(CALL.replace("Block", "Outer"), after=OUTER + FUNCTION), "bn"),
}


@pytest.mark.parametrize(("model", "keep"), CASES.values(), ids=CASES)
def test_a_kept_node_is_there_unchanged(model, keep):
    """Byte for byte, and it is not idle; the model computes the same."""
    onnx.checker.check_model(model, full_check=True)
    wanted = [node for node in all_nodes(model) if fnmatchcase(label(node), keep)]
    assert wanted
    _, after = folded(model, keep=[keep])
    onnx.checker.check_model(after, full_check=True)
    assert all(is_there(node, after) for node in wanted)
    assert_nothing_dead(model, after)
    for feeds in feeds_of(model):
        assert_close(output(after, feeds), output(model, feeds), 1e-5)
    assert folded(model)[1] != after, "it would stay anyway"


@pytest.mark.parametrize("form", [Leftover.AFFINE, Leftover.CONV])
def test_what_makes_a_parameter_keeps_its_reader(form):
    """A BatchNormalization stays even for compilers that know none, where a kept node would come to stand idle."""
    model = graph(
        "r = Relu (x) [kept] s = Identity ({s0: 3}) y = BatchNormalization (r, s, {b: 3}, {m: 3}, {v: 3 positive})"
    )
    assert folded(model, leftover=form)[0].count(Outcome.REPLACED) == 1
    planned, after = folded(model, leftover=form, keep=["kept"])
    assert after == model
    (entry,) = planned.entries
    assert entry.refusals[-1] == Refusal(Reason.KEPT_BY_NAME, {}, "kept")


def test_a_weight_that_others_read_may_get_a_copy():
    """The kept operator that makes it goes on doing so for them; the last reader has to stay."""
    model = graph(
        """[kept] w = Transpose <perm = [1, 0, 2, 3]> ({w0: 3, 3, 1, 1})
        c = Conv (x, w) [bn] y = BatchNormalization (c, {bn: 3})
        d = Conv (x, w) [bn2] z = BatchNormalization (d, {bn2: 3 unshifted})""",
        outputs="float[2, 3, 6, 6] y, float[2, 3, 6, 6] z",
    )
    planned, after = folded(model, keep=["kept"])
    assert [told(entry) for entry in planned.entries] == [
        "bn folded into c",
        "bn2 kept: KEPT_BY_NAME at kept, GRAPH_OUTPUT",
    ]
    assert is_there(model.graph.node[0], after)


def test_another_way_is_found():
    """Where the Add behind a MatMul is kept, a product of matrices takes the shift in itself."""
    model = graph(
        "[bn] b = BatchNormalization (x, {bn: 3}) [mm] m = MatMul (b, {w: 3, 5}) [add] y = Add (m, {c: 5})",
        inputs="float[2, 3] x",
        outputs="float[2, 5] y",
    )
    _, after = folded(model, keep=["add"])
    assert [node.op_type for node in after.graph.node] == ["Gemm", "Add"]
    assert is_there(model.graph.node[2], after)


def test_a_kept_batchnorm_says_so_first():
    """Whatever else there is to say of it."""
    model, _ = CASES["BatchNormalization in a function"]
    (entry,) = folded(model, keep=["bn"])[0].entries
    assert told(entry) == "bn kept: KEPT_BY_NAME"


# --- patterns ------------------------------------------------------------------------------------------------

SMALL = graph(
    "c = Conv (x, {w: 3, 3, 1, 1}) b = BatchNormalization (c, {bn: 3}) r = Relu (b) y = Mul (r, {s: 3, 1, 1})"
)
for node, name in zip(SMALL.graph.node, ["/head/conv", "norm[1]", "", "/body/scale"], strict=True):
    node.name = name


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        pytest.param("norm[1]", "norm[1]", id="brackets-as-they-stand"),
        pytest.param("norm[[]1]", "norm[1]", id="brackets-as-in-file-names"),
        pytest.param("r", "r", id="no-name"),
        pytest.param("/*/conv", "/head/conv", id="glob"),
    ],
)
def test_what_a_pattern_matches(pattern, kept):
    """What reports call a node: its name, or that of its first output; and always a name as it stands."""
    loaded = Graph(load(SMALL))
    mark_kept(loaded, [pattern])
    assert [op.label for op in loaded.ops() if op.is_kept] == [kept]


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        pytest.param("b", "", id="a-value"),
        pytest.param("/haed/*", "; near it: /head/conv", id="glob"),
        pytest.param("/BODY/Scale", "; near it: /body/scale", id="case"),
        pytest.param("nothing like it", "", id="nothing"),
        pytest.param("", "", id="empty"),
    ],
)
@pytest.mark.parametrize(
    "verb",
    [bnfold.plan, bnfold.fold, bnfold.check, bnfold.optimize, partial(bnfold.optimize, calibrate={"x": np.zeros(3)})],
    ids=["plan", "fold", "check", "optimize", "optimize-calibrate"],
)
def test_a_pattern_that_matches_nothing_is_a_mistake(verb, pattern, hint):
    """In every verb; the message names what looks like it."""
    with pytest.raises(bnfold.ModelError, match=re.escape(f"model: no node matches {pattern!r}{hint}") + "$"):
        verb(SMALL, keep=["/head/conv", pattern])


@pytest.mark.parametrize("verb", [bnfold.plan, bnfold.fold, bnfold.check, bnfold.optimize])
@pytest.mark.parametrize("keep", ["/head/*", b"/head/*"])
def test_a_text_is_no_list_of_patterns(verb, keep):
    """Letter by letter it would match whatever there is."""
    with pytest.raises(TypeError, match=re.escape(f"[{keep!r}]")):
        verb(SMALL, keep=keep)


def test_patterns_may_come_from_anywhere():
    """Also from what can be read only once."""
    model = CASES["BatchNormalization in a function"][0]
    _, after = folded(model, keep=(name for name in ["bn"]))
    assert is_there(model.functions[0].node[1], after)
