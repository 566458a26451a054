"""Models that are wrong: whatever it is, they are read or refused."""

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import bnfold
from bnfold.reasons import Reason
from mutants.examine import Depth, examine
from mutants.mutations import mutant
from mutants.operators import network
from mutants.originals import originals

HEAD = '<ir_version: 8, opset_import: ["": 17, "d": 1]> net '
BN = "<float[3] g = {1, 2, 3}, float[3] b = {1, 2, 3}, float[3] m = {1, 2, 3}, float[3] v = {1, 2, 3}>"
CONV_BN = "(float[1, 3, 4, 4] x) => (float[1, 3, 4, 4] y) { c = Conv (x, w) y = BatchNormalization (c, g, b, m, v) }"

Change = Callable[[onnx.ModelProto], object]


def model(body: str, *, weight: np.ndarray | None = None) -> onnx.ModelProto:
    made = onnx.parser.parse_model(HEAD + body.replace(" {", BN + " {", 1))
    array = np.ones((3, 3, 1, 1), np.float32) if weight is None else weight
    made.graph.initializer.append(numpy_helper.from_array(array, "w"))
    return made


def conv_bn(change: Change) -> onnx.ModelProto:
    """A Conv with its BatchNormalization, changed."""
    made = model(CONV_BN)
    change(made)
    return made


def above(node: onnx.NodeProto) -> onnx.ModelProto:
    """A node that makes the input of a BatchNormalization, by the name of c, out of x and w."""
    made = model(CONV_BN)
    made.graph.node[0].CopyFrom(node)
    return made


def tensor(made: onnx.ModelProto, name: str) -> TensorProto:
    return next(each for each in made.graph.initializer if each.name == name)


def typed(name: str, kind: int, values: object) -> Change:
    """Gives an initializer another type."""
    return lambda made: tensor(made, name).CopyFrom(helper.make_tensor(name, kind, [3], values))


def of_type(name: str, number: int) -> Change:
    def change(made: onnx.ModelProto) -> None:
        found = tensor(made, name)
        found.data_type = number

    return change


def with_attribute(attribute: AttributeProto) -> Change:
    return lambda made: made.graph.node[0].attribute.append(attribute)


def calling(*bodies: str) -> Change:
    """Functions F0, F1, … of those bodies, the first of which is called in the place of the Conv."""

    def change(made: onnx.ModelProto) -> None:
        for number, body in enumerate(bodies):
            node = helper.make_node(body, ["a"], ["r"], domain="d" if body.startswith("F") else "")
            opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
            made.functions.append(helper.make_function("d", f"F{number}", ["a"], ["r"], [node], opsets))
        made.graph.node[0].CopyFrom(helper.make_node("F0", ["x"], ["c"], domain="d"))

    return change


def holding_a_graph(made: onnx.ModelProto) -> None:
    """In a node of an operator that has none, a graph that reads an outer value."""
    body = helper.make_graph(
        [helper.make_node("Abs", ["c"], ["o"])], "g", [], [helper.make_empty_tensor_value_info("o")]
    )
    made.graph.node[1].attribute.append(helper.make_attribute("then_branch", body))


def lacking_an_output(made: onnx.ModelProto) -> None:
    """In a function, which says that it has another one."""
    calling("Relu")(made)
    made.functions[0].output.append("q")


def textual_epsilon(made: onnx.ModelProto) -> None:
    made.graph.node[1].attribute.append(helper.make_attribute("epsilon", "small"))


def opset(version: int) -> Change:
    return lambda made: setattr(made.opset_import[0], "version", version)


SPLIT = helper.make_node("Split", ["x"], ["c", "c2"], num_outputs=1)
SIGNALLING = np.array([0x7F800001] * 3, np.uint32).view(np.float32)
GRAPH = helper.make_attribute("body", helper.make_graph([], "g", [], []))
GRAPH_BY_NAME_ONLY = AttributeProto(name="body", type=AttributeProto.FLOAT, g=onnx.GraphProto(name="g"))


def of_no_version(made: onnx.ModelProto) -> None:
    """A constant that is a number where a tensor belongs, and nothing says since when it might be."""
    made.graph.node[0].CopyFrom(helper.make_node("Mul", ["x", "k"], ["c"]))
    made.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=1.0))
    made.opset_import[0].domain = "other"


def faulty() -> Iterator[object]:
    """Each shows a kind of fault that a campaign has found."""
    const, node = helper.make_node("Constant", [], ["k"]), helper.make_node
    for value in (3, "text", [1.0], TensorProto(data_type=76, dims=[1], raw_data=b"1234"), None):
        if value is not None:
            del const.attribute[:]
            const.attribute.append(helper.make_attribute("value", value))
        changed = conv_bn(lambda made: made.graph.node[0].CopyFrom(node("Mul", ["x", "k"], ["c"])))
        changed.graph.node.insert(0, const)
        yield pytest.param(changed, id=f"constant-node-{type(value).__name__}")
    yield pytest.param(conv_bn(of_no_version), id="constant-node-of-no-version")
    yield pytest.param(conv_bn(of_type("w", 76)), id="type-unknown")
    yield pytest.param(
        conv_bn(lambda made: setattr(made.graph.input[0].type.tensor_type, "elem_type", 76)), id="type-in"
    )
    yield pytest.param(
        conv_bn(lambda made: setattr(made.graph.output[0].type.tensor_type, "elem_type", 76)), id="type-out"
    )
    for kind, values in (
        (TensorProto.STRING, [b"a"] * 3),
        (TensorProto.COMPLEX64, [1j] * 3),
        (TensorProto.BOOL, [1] * 3),
    ):
        yield pytest.param(conv_bn(typed("b", kind, values)), id=f"parameters-{kind}")
    yield pytest.param(conv_bn(typed("g", TensorProto.FLOAT8E5M2, [1.0] * 3)), id="float8-among-float32")
    yield pytest.param(
        conv_bn(lambda made: tensor(made, "g").CopyFrom(numpy_helper.from_array(SIGNALLING, "g"))), id="snan"
    )
    yield pytest.param(model(CONV_BN, weight=np.ones((3, 3, 1, 1), np.uint16)), id="weight-of-integers")
    yield pytest.param(model(CONV_BN, weight=np.ones(3, np.float32)), id="weight-without-axes")
    for op_type, inputs in (("Einsum", ["x", "w"]), ("Add", ["x"]), ("Add", []), ("Reshape", ["x"]), ("Split", [])):
        yield pytest.param(above(node(op_type, inputs, ["c"])), id=f"{op_type}-of-{len(inputs)}")
    yield pytest.param(conv_bn(lambda made: made.graph.node[1].output.__setitem__(0, "")), id="no-output")
    for op_type, inputs in (
        *(("Add", ["x", "x"]), ("Identity", ["x"]), ("BatchNormalization", ["c", *"gbmv"]), ("Dropout", [*"xgg"])),
        *(("RandomNormalLike", ["x"]), ("Constant", []), ("Mul", ["c", "g"])),
    ):
        for outputs in ([], [""]):
            beside = conv_bn(lambda made: made.graph.node.insert(1, node(op_type, inputs, outputs)))  # noqa: B023
            yield pytest.param(beside, id=f"{op_type}-of-outputs-{outputs}")
    for attribute in (
        helper.make_attribute("group", "one"),
        helper.make_attribute("pads", 1.5),
        helper.make_attribute("auto_pad", 3),
        AttributeProto(name="group", ref_attr_name="x", type=AttributeProto.INT),
        AttributeProto(name="group", i=1),
        GRAPH,
        GRAPH_BY_NAME_ONLY,
    ):
        yield pytest.param(conv_bn(with_attribute(attribute)), id=f"attribute-{attribute.name}-{attribute.type}")
    yield pytest.param(above(node("Einsum", ["x", "w"], ["c"], equation=3)), id="equation-is-a-number")
    yield pytest.param(conv_bn(textual_epsilon), id="epsilon-is-text")
    yield pytest.param(above(node("Einsum", ["x", "w"], ["c"], equation=b"\xff")), id="equation-is-no-text")
    yield pytest.param(above(node("ConstantOfShape", ["x"], ["c"], value=3)), id="fill-is-a-number")
    yield pytest.param(above(node("Cast", ["w"], ["c"], to=76)), id="cast-to-nothing")
    yield pytest.param(conv_bn(holding_a_graph), id="graph-where-none-is")
    yield pytest.param(conv_bn(calling("Relu")), id="function")
    yield pytest.param(conv_bn(calling("F0")), id="recursive")
    yield pytest.param(conv_bn(calling("F1", "F0")), id="recursive-in-two")
    yield pytest.param(conv_bn(calling("F1")), id="function-that-is-not-there")
    yield pytest.param(conv_bn(lacking_an_output), id="function-lacks-output")
    for version in (0, 2**31, 2**63 - 1, -1):
        yield pytest.param(conv_bn(opset(version)), id=f"opset-{version}")
    yield pytest.param(above(SPLIT), id="split-past-its-end")
    for indices in ([-1, 4], [4, 400], [4, 4], [4, 0], [[0, 0, 0, 0], [9, 0, 0, 0]], [[0, 0, 0, 0], [-1, 0, 0, 0]]):
        yield pytest.param(conv_bn(sparse(indices)), id=f"sparse-at-{indices}")
    yield pytest.param(conv_bn(sparse([0, 1], (1 << 32, 1 << 32))), id="sparse-and-huge")
    yield pytest.param(conv_bn(passing_through), id="function-that-does-nothing")
    yield pytest.param(conv_bn(doubling), id="list-of-sizes-doubled")
    yield pytest.param(conv_bn(of_a_huge_batch), id="huge-input")
    yield pytest.param(conv_bn(joining_a_number), id="list-of-sizes-joined-with-a-number")


def sparse(indices: list[int] | list[list[int]], dims: Sequence[int] = (3, 3, 1, 1), count: int = 2) -> Change:
    """Makes the weight a sparse one, of that many values."""

    def change(made: onnx.ModelProto) -> None:
        del made.graph.initializer[-1]
        values = numpy_helper.from_array(np.ones(count, np.float32), "w")
        places = numpy_helper.from_array(np.array(indices, np.int64), "places")
        made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, dims))

    return change


def passing_through(made: onnx.ModelProto) -> None:
    """A function whose output is its input, which ONNX's inliner loses."""
    made.functions.append(helper.make_function("d", "F", ["a"], ["a"], [], [helper.make_opsetid("", 17)]))
    made.graph.node[0].output[0] = "q"
    made.graph.node.insert(1, helper.make_node("F", ["q"], ["c"], domain="d"))


def doubling(made: onnx.ModelProto) -> None:
    """A list of sizes, joined with itself forty times, which ONNX's data propagation would write out."""
    lines = [helper.make_node("Shape", ["x"], ["s0"])]
    lines += [helper.make_node("Concat", [f"s{n}", f"s{n}"], [f"s{n + 1}"], axis=0) for n in range(40)]
    for place, node in enumerate(lines):
        made.graph.node.insert(place, node)


def joining_a_number(made: onnx.ModelProto) -> None:
    """A Reshape to a size by itself, which is no list, joined with a list."""
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    made.graph.initializer.append(helper.make_tensor("zero", TensorProto.INT64, [], [0]))
    lines = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "zero"], ["n"])]
    lines += [helper.make_node("Concat", ["n", "s"], ["t"], axis=0), helper.make_node("Reshape", ["x", "t"], ["c"])]
    del made.graph.node[0]
    for place, node in enumerate(lines):
        made.graph.node.insert(place, node)


def of_a_huge_batch(made: onnx.ModelProto) -> None:
    for axis in (0, 2):
        made.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 1 << 62


@pytest.mark.parametrize("wrong", list(faulty()))
def test_found(wrong):
    """It is read or refused; what is written can be read; and no warning of a library reaches the user."""
    assert examine(wrong.SerializeToString(), Depth.REGIONS).startswith("ok: ")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param(model(CONV_BN, weight=np.ones((3, 3, 1, 1), np.uint16)), Reason.NOT_FLOAT, id="integers"),
        pytest.param(conv_bn(typed("b", TensorProto.COMPLEX64, [1j] * 3)), Reason.NOT_CONSTANT, id="complex"),
        pytest.param(conv_bn(textual_epsilon), Reason.MALFORMED, id="text"),
    ],
)
def test_kept(wrong, reason):
    """A BatchNormalization that cannot be folded rightly stays, and the reason says why."""
    (entry,) = bnfold.check(wrong).plan.entries
    assert reason in {refusal.reason for refusal in entry.refusals}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        pytest.param(conv_bn(holding_a_graph), "holds a graph, which no 'BatchNormalization' has", id="graph"),
        pytest.param(conv_bn(opset(2**31)), "version 2147483648", id="opset"),
        pytest.param(conv_bn(lacking_an_output), "nothing computes the output 'q' of function 'F0'", id="function"),
        pytest.param(above(SPLIT), "has 2 outputs, but num_outputs is 1", id="split"),
        pytest.param(
            above(helper.make_node("Einsum", ["x"], ["c"], equation="... ...->...")), "make no ellipsis", id="dots"
        ),
        pytest.param(conv_bn(sparse([4])), "indices [1] do not fit values [2] of dims [3, 3, 1, 1]", id="sparse"),
        pytest.param(conv_bn(sparse([4, 4])), "sparse tensor 'w': its indices are out of range", id="sparse-twice"),
    ],
)
def test_refused(wrong, words):
    """A model that contradicts itself is not read, and the line says where."""
    with pytest.raises(bnfold.ModelError, match=re.escape(words)):
        bnfold.check(wrong)


def test_some_mutants():
    """The first few of the campaign of benchmarks/mutate.py."""
    models = originals()
    told = [examine(mutant(models, number)) for number in range(300)]
    assert [what for what in told if not what.startswith("ok: ")] == []
    assert {"ok: refused", "ok: folded", "ok: nothing to fold"} <= set(told)


def test_some_operators():
    """The first few of the campaign of benchmarks/operators.py."""
    told = [examine(network(number)) for number in range(60)]
    assert [what for what in told if not what.startswith("ok: ")] == []
    assert {"ok: refused", "ok: folded", "ok: nothing to fold"} <= set(told)
