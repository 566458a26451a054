"""Channels whose folded weights are too small for their type: what that does to them decides, whatever reads them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import Array, folded, model_of, run
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bnfold.folding import Leftover
from bnfold.folding.representable import refuse_unrepresentable
from bnfold.folding.underflow import Scaling
from bnfold.folding.walk import Walk
from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.ops import RULES
from bnfold.reasons import Reason, Refused

NORMAL, STEP, UNIT = 2.0**-14, 2.0**-24, 2.0**-11
SMALL = 3  # the channel that is looked at
CONV_BN = """(T[1, 16, 6, 6] x) => (T[1, 8, 6, 6] y) {
    [conv] c = Conv (x, {w: 8, 16, 1, 1})
    [bn] y = BatchNormalization <epsilon = 0.0> (c, {g: 8}, {h: 8}, {m: 8}, {v: 8}) }"""
AMPLIFIED = (
    CONV_BN.replace("] y) {", "] z) {")
    .replace("y = Batch", "b = Batch")
    .replace("{v: 8}) }", "{v: 8})\n [next] z = Conv (b, {a: 8, 8, 1, 1}) }")
)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


X = normal(1, 16, 6, 6, seed=1).astype(np.float16)
WEIGHT = normal(8, 16, 1, 1) / 8


def at(value: float, others: float = 1.0) -> Array:
    """A vector with one value in the small channel and another in the others."""
    return np.where(np.arange(8) == SMALL, value, others)


def model(graph: str = CONV_BN, dtype: str = "float16", **values: Array | float) -> ModelProto:
    """A model in half precision, its statistics those of its data unless they are given."""
    made = model_of(f'<ir_version: 8, opset_import: ["": 17]> t {graph}', dtype)
    given: dict[str, Array | float] = {"w": WEIGHT, "h": 0.0, "g": 1.0} | values
    if np.shape(given["w"]) == (8, 16, 1, 1):
        data = np.einsum("oihw,nixy->noxy", np.asarray(given["w"], np.float16), X.astype(float))
        given = {"m": data.mean((0, 2, 3)), "v": data.var((0, 2, 3))} | given
    for tensor in made.graph.initializer:
        if tensor.name in given:
            old = numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                numpy_helper.from_array(np.broadcast_to(given[tensor.name], old.shape).astype(old.dtype), tensor.name)
            )
    return made


def refusal(before: ModelProto) -> Refused | None:
    """Why the whole of the last affine that can be walked with has no place; None if it has one."""
    op = [op for op in Graph(load(before)).ops() if op.type in ("BatchNormalization", "Mul")][-1]
    read = RULES[op.type].affine
    assert read is not None
    index, affine = read(op)
    source = op.data(index)
    way = Walk(op).up(source, affine) if source.producer else Walk(op).down(op.output, affine)
    try:
        refuse_unrepresentable(way.edits, Scaling.of(op, way))
    except Refused as refused:
        return refused
    return None


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"g": at(0.01)}, id="some-weights-are-normal"),
        pytest.param({"w": WEIGHT * at(1e-6).reshape(8, 1, 1, 1), "v": 1.0, "m": 0.0}, id="as-small-in-the-original"),
        pytest.param({"g": at(1e-7), "h": 0.1}, id="less-than-a-rounding-of-beta"),
        pytest.param({"g": at(1e-9), "h": at(1e-3)}, id="less-than-a-rounding-of-a-small-beta"),
        pytest.param({"g": at(5e-5), "h": 0.3}, id="flushed-it-is-less-than-a-rounding-of-beta"),
        pytest.param({"g": at(5e-4), "h": 0.3}, id="digits-matter-less-than-a-rounding-of-beta"),
        pytest.param({"g": at(0)}, id="nothing"),
    ],
)
def test_what_is_harmless_folds(values: dict[str, Array]) -> None:
    """One rounding of beta or of the weights costs as much, or the original had lost it."""
    assert refusal(model(**values)) is None


def test_an_earlier_fold_into_the_same_weight_changes_nothing() -> None:
    """What went into its other axis is none of this affine's business."""
    graph = CONV_BN.replace("c = Conv (x", "n = BatchNormalization (x, {p: 16}, {q: 16}, {q: 16}, {p: 16}) c = Conv (n")
    _, after = folded(model(graph, g=at(1e-7), h=0.1, p=np.linspace(0.5, 2, 16), q=0.0))
    assert [node.op_type for node in after.graph.node] == ["Conv"]


REFUSED = [
    pytest.param(CONV_BN, {"g": at(1e-5)}, "rounding", id="no-beta"),
    pytest.param(CONV_BN, {"g": at(1e-5), "h": at(1e-5)}, "rounding", id="a-beta-as-small"),
    pytest.param(CONV_BN, {"g": 5e-4, "h": 0.1}, "flushes", id="all-channels-may-be-flushed"),
    pytest.param(CONV_BN, {"g": at(2e-4, 0.03)}, "flushes", id="flushed-it-is-more-than-a-rounding-of-the-others"),
    pytest.param(
        CONV_BN, {"w": WEIGHT * at(1e-6).reshape(8, 1, 1, 1), "v": at(100.0), "m": 0.0}, "rounding", id="made-smaller"
    ),
    pytest.param(CONV_BN, {"g": at(1e-7), "h": 0.1, "m": at(1e4, 0)}, "rounding", id="its-mean-moves-it"),
    pytest.param(
        "(T[2, 3] x) => (T[2, 4] y) { c = MatMul (x, {w: 3, 4}) y = Mul (c, {s:}) }",
        {"w": 0.3, "s": 1e-5},
        "rounding",
        id="one-scale-for-all",
    ),
    pytest.param(
        CONV_BN.replace("{w: 8, 16, 1, 1}", "{w: 8, 16, 1, 1}, {b: 8}"),
        {"g": at(1e-7), "h": 0.1, "b": at(1e4, 0)},
        "rounding",
        id="its-bias-moves-it",
    ),
    pytest.param(
        CONV_BN.replace(
            "BatchNormalization <epsilon = 0.0> (c, {g: 8}, {h: 8}, {m: 8}, {v: 8})", "Mul (c, {s: 8, 1, 1})"
        ),
        {"s": at(1e-5).reshape(8, 1, 1)},
        "rounding",
        id="no-batchnorm",
    ),
    pytest.param(
        CONV_BN.replace("y = Batch", "d = Conv (x, {u: 8, 16, 1, 1}) s = Add (c, d) y = Batch").replace("> (c", "> (s"),
        {"g": at(1e-7), "h": 0.1},
        "rounding",
        id="its-statistics-are-those-of-a-sum",
    ),
    pytest.param(
        CONV_BN,
        {"g": 1e-7, "h": at(0, 0.1), "v": 1.0, "m": 0.0},
        "rounding",
        id="another-channel-has-the-beta",
    ),
    pytest.param(
        """(T[1, 8, 6, 6] x) => (T[1, 8, 6, 6] y) {
        b = BatchNormalization <epsilon = 0.0> (x, {g: 8}, {h: 8}, {m: 8}, {v: 8})
        y = Conv (b, {u: 8, 8, 1, 1}) }""",
        {"g": at(1e-5), "h": 0.1, "v": 1.0, "m": 0.0},
        "rounding",
        id="what-it-reads-may-be-large",
    ),
]


@pytest.mark.parametrize(("graph", "values", "effect"), REFUSED)
def test_what_is_not_is_refused(graph: str, values: dict[str, Array], effect: str) -> None:
    """Each with its channel and the figures."""
    refused = refusal(model(graph, **values))
    assert refused is not None
    assert refused.reason is Reason.UNDERFLOW
    assert effect in str(refused.facts["effect"])
    assert float(str(refused.facts["limit"])) == pytest.approx(NORMAL, 0.01)
    assert effect == "flushes" or float(str(refused.facts["largest"])) < NORMAL
    all_alike = all(np.size(value) == 1 for value in (values[name] for name in "gs" if name in values))
    assert refused.facts["channel"] in (range(8) if all_alike else [SMALL])


def test_the_reason_reads_as_a_sentence() -> None:
    refused = refusal(model(g=at(1e-5)))
    assert refused is not None
    assert refused.reason.value.format(**refused.facts) == (
        "channel 3 of Conv, then 4.5e-06 at the most, has numbers below 6.1e-05: "
        "rounding would change it by 0.007 of itself"
    )


@pytest.mark.parametrize("dtype", ["float", "bfloat16", "double"])
def test_every_type_has_its_own_limit(dtype: str) -> None:
    """Not what float16 can hold, but the normal numbers of the type itself."""
    graph = "(T[2, 3] x) => (T[2, 4] y) { c = MatMul (x, {w: 3, 4}) y = Mul (c, {s: 4}) }"
    scale = 1.1 * 2.0 ** ((-1022 if dtype == "double" else -126) + 3)
    assert refusal(model(graph, dtype, w=1.7, s=scale)) is None
    assert refusal(model(graph, dtype, w=1.7 * 2**-6, s=scale)) is not None


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param("c = Mul (x, {s: 8, 1, 1}) y = Mul (c, {r: 8, 1, 1})", id="scale-of-a-scale"),
        pytest.param("c = Div (x, {d: 8, 1, 1}) y = Mul (c, {r: 8, 1, 1})", id="divisor"),
        pytest.param("c = InstanceNormalization (x, {s: 8}, {t: 8}) y = Mul (c, {r: 8, 1, 1})", id="norm"),
        pytest.param(
            """c = BatchNormalization (x, {s: 8}, {t: 8}, {m: 8}, {v: 8})
            y = BatchNormalization (c, {r: 8}, {t: 8}, {m: 8}, {v: 8})""",
            id="batchnorm",
        ),
    ],
)
def test_a_vector_that_multiplies_keeps_its_digits(graph: str) -> None:
    """What is folded into another scale is refused where half precision would lose some of it."""
    graph = f"(T[1, 8, 6, 6] x) => (T[1, 8, 6, 6] y) {{ {graph} }}"
    large, small = 2.0**-7, np.reshape(at(2.0**-12 * 1.7, 1), (8, 1, 1) if "r: 8, 1" in graph else 8)
    values = {"s": large * 1.3, "d": 1 / large, "t": 0.0, "m": 0.0, "v": 1.0}
    before = model(graph, **values, r=small)
    planned, after = folded(before)
    assert after == before
    assert {refusal.reason for entry in planned.entries for refusal in entry.refusals} >= {Reason.UNDERFLOW}
    _, after = folded(model(graph, **values, r=small * 2.0**5))
    assert len(after.graph.node) == 1


@pytest.mark.parametrize(("beta", "stays"), [(0.5, False), (1e-3, True)])
def test_what_stays_for_a_batchnorm_keeps_its_digits(beta: float, stays: bool) -> None:
    """A Mul in its place is no remedy where its own numbers are too small, unless they count for nothing."""
    before = model(g=at(3e-5), m=0.0, h=beta, v=0.9)
    _, after = folded(before, keep=["conv"], leftover=Leftover.AFFINE)
    assert ("BatchNormalization" in {node.op_type for node in after.graph.node}) == stays


# --- what reads the channel, and devices that flush --------------------------------------------------------------


def stored(before: ModelProto, *, flushes: bool) -> Array:
    """The output where every value and weight is stored in half precision; a device may flush what is not normal."""
    nodes = []
    names = [tensor.name for tensor in before.graph.initializer]
    limits = [numpy_helper.from_array(np.array(value), name) for value, name in ((NORMAL, "limit"), (0.0, "none"))]

    def store(name: str, result: str) -> None:
        half, wide, size, is_small = (f"{name}/{part}" for part in ("half", "wide", "size", "is_small"))
        nodes.append(helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16))
        nodes.append(helper.make_node("Cast", [half], [wide if flushes else result], to=TensorProto.DOUBLE))
        if flushes:
            nodes.append(helper.make_node("Abs", [wide], [size]))
            nodes.append(helper.make_node("Less", [size, "limit"], [is_small]))
            nodes.append(helper.make_node("Where", [is_small, "none", wide], [result]))

    for name in names:
        store(name, f"{name}/stored")
    for node in before.graph.node:
        inputs = [f"{name}/stored" if name != "x" else name for name in node.input]
        made = helper.make_node(node.op_type, inputs, [*node.output])
        made.attribute.extend(node.attribute)
        nodes.append(made)
        store(node.output[0], f"{node.output[0]}/stored")
    (output,) = before.graph.output
    result = helper.make_tensor_value_info(f"{output.name}/stored", TensorProto.DOUBLE, None)
    entry = helper.make_tensor_value_info("x", TensorProto.DOUBLE, X.shape)
    graph = helper.make_graph(nodes, "stored", [entry], [result], [*before.graph.initializer, *limits])
    return run(helper.make_model(graph, opset_imports=before.opset_import), {"x": X.astype(np.float64)})[result.name]


def exact(before: ModelProto) -> Array:
    """The output in float64, of the weights as they are."""
    made = onnx.ModelProto()
    made.CopyFrom(before)
    for tensor in made.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for entry in (*made.graph.input, *made.graph.output):
        entry.type.tensor_type.elem_type = TensorProto.DOUBLE
    return run(made, {"x": X.astype(np.float64)})[made.graph.output[0].name]


def rms(values: Array) -> float:
    return float(np.sqrt((values**2).mean()))


@pytest.mark.parametrize("beta", [0, 1e-4, 0.01, 0.3])
@pytest.mark.parametrize("gamma", [1e-2, 1e-3, 5e-4, 1e-4, 1e-5, 1e-6, 1e-7])
def test_a_reader_that_amplifies_the_channel_gets_as_good_a_value(gamma: float, beta: float) -> None:
    """By 10,000, so that it is all that counts: beside its own spread and beta, the error is no more than doubled."""
    amplify = np.zeros((8, 8, 1, 1))
    amplify[:, SMALL] = 1e4
    before = model(AMPLIFIED, g=at(gamma), h=at(beta), a=amplify)
    _, after = folded(before, keep=["next"])
    truth = exact(before)
    allowed = max(2 * rms(stored(before, flushes=False) - truth), UNIT * rms(truth))
    assert rms(stored(after, flushes=False) - truth) <= allowed


@pytest.mark.parametrize("beta", [0, 0.01, 0.3])
@pytest.mark.parametrize("others", [1, 0.1, 1e-3])
@pytest.mark.parametrize("gamma", [1e-2, 1e-3, 5e-4, 1e-4, 1e-5])
def test_a_device_that_flushes_loses_no_more(gamma: float, others: float, beta: float) -> None:
    """Whether one channel is small or all are: of the whole output no more than one rounding."""
    before = model(g=at(gamma, others), h=at(beta, beta))
    _, after = folded(before)
    truth = exact(before)
    allowed = 2 * rms(stored(before, flushes=True) - truth) + 2 * UNIT * rms(truth)
    assert rms(stored(after, flushes=True) - truth) <= allowed


ROW = "(T[1, 8, 6, 6] x) => (T[1, 8, 6, 6] y) { [a] p = Conv (x, {w1: 8, 8, 1, 1}) [b] y = Conv (p, {w2: 8, 8, 1, 1}) }"
MATRICES = "(T[4, 8] x) => (T[4, 8] y) { [a] p = Gemm (x, {w1: 8, 8}) [b] y = Gemm (p, {w2: 8, 8}) }"


@pytest.mark.parametrize(("graph", "axis"), [(ROW, 0), (MATRICES, 1)], ids=["convs", "gemms"])
@pytest.mark.parametrize(("small", "goes"), [(3e-4, False), (3e-3, True)])
def test_a_product_without_normal_numbers_is_refused(graph, axis, small, goes):
    """Two weights in a row stay where a channel of their product would have too few digits."""
    before = model(graph)
    shape = numpy_helper.to_array(before.graph.initializer[0]).shape
    channel = at(small).reshape([-1 if at_ == axis else 1 for at_ in range(len(shape))])
    before = model(graph, w1=normal(*shape) * 0.02, w2=normal(*shape, seed=1) * channel)
    planned, _ = folded(before)
    assert len(planned.entries) == int(goes)
    if not goes:
        assert folded(model(graph, w1=normal(*shape) * 0.02, w2=normal(*shape, seed=1)))[0].changes
