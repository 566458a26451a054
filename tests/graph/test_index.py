"""The index: who makes a value, who reads it, in which scope."""

import gc
import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from helpers import folded, model_of

from bnfold.folding import plan
from bnfold.graph import Graph, old_objects_left_alone
from bnfold.model_io import load
from bnfold.reasons import Reason

HEADER = '<ir_version: 8, opset_import: ["": 17, "my": 1]>\n'


def graph_of(text: str, **options) -> Graph:
    return Graph(load(model_of(HEADER + text)), **options)


def named(graph: Graph, name: str):
    return next(op for op in graph.ops() if op.label == name)


def readers(value) -> list[tuple[str, int]]:
    return [(use.op.label, use.index) for use in value.readers]


def test_producer_and_readers_with_their_input():
    """A value knows the output that makes it, and each input that reads it, one operator twice if it does."""
    graph = graph_of("""g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z) {
        [split] a, b = Split <axis = 1> (x, {sizes: 2 int64})
        [add] c = Add (b, b)
        [mul] y = Mul (x, x)
        [where] z = Max (x, c, x) }""")
    values = graph.main.values
    assert (values["b"].producer, values["b"].index) == (named(graph, "split"), 1)
    assert readers(values["b"]) == [("add", 0), ("add", 1)]
    assert readers(values["x"]) == [("split", 0), ("mul", 0), ("mul", 1), ("where", 0), ("where", 2)]
    assert values["x"].is_input
    assert values["x"].producer is None
    assert values["y"].is_output
    assert not values["c"].is_output


def test_an_omitted_input_is_no_value():
    """`""` is read by nobody, in no place."""
    graph = graph_of("""g (float[1, 2, 3] x) => (float[1, 2, 3] y) {
        [conv] c = Conv (x, {w: 2, 2, 1}, "")
        [clip] y = Clip (c, "", {high: }) }""")
    assert "" not in graph.main.values
    assert named(graph, "conv").input(2) is None
    assert named(graph, "clip").input(1) is None
    assert named(graph, "clip").input(7) is None
    assert named(graph, "clip").input(2) is not None


BODIES = """g (bool p, float[2] x) => (float[2] y) {
    [relu] c = Relu (x)
    [if] y = If (p) <
        then_branch = a () => (float[2] o) { [inner] d = Neg (c)
            [deep] o = If (p) <then_branch = e () => (float[2] q) { [deepest] q = Add (c, d) },
                               else_branch = f () => (float[2] r) { [other] r = Identity (d) }> },
        else_branch = b () => (float[2] o) { [else] d = Abs (x)
            [sum] o = Add (d, {k: 2}) }> }"""


def test_values_captured_by_subgraphs():
    """A body reads the values of the graphs around it, and its own of the same name first."""
    graph = graph_of(BODIES)
    outer = graph.main.values
    assert readers(outer["c"]) == [("inner", 0), ("deepest", 0)]
    assert readers(outer["x"]) == [("relu", 0), ("else", 0)]
    inner, other = named(graph, "inner").output, named(graph, "else").output
    assert inner is not other
    assert readers(inner) == [("deepest", 1), ("other", 0)]
    assert readers(other) == [("sum", 0)]
    assert readers(outer["k"]) == [("sum", 1)]
    assert outer["k"].scope is graph.main


def test_scopes_in_order():
    """Scopes are numbered as graphs are met; an operator of another domain may have bodies, too."""
    graph = graph_of(BODIES)
    assert [scope.number for scope in graph.scopes] == [0, 1, 2, 3, 4]
    assert [scope.proto.name for scope in graph.scopes] == ["g", "a", "e", "f", "b"]
    assert len(named(graph, "if").bodies) == 2


def test_a_branch_may_give_an_outer_value():
    """Then the outer value is an output of the branch, and may not change."""
    graph = graph_of("""g (bool p, float[2] x) => (float[2] y) {
        [relu] c = Relu (x)
        [if] y = If (p) <then_branch = a () => (float[2] c) { [unused] d = Neg (c) },
                         else_branch = b () => (float[2] o) { o = Abs (c) }> }""")
    assert graph.main.values["c"].is_output


def test_what_a_node_reads():
    """Its inputs, without omitted ones, then what its bodies read of the graphs around them, not of themselves."""
    graph = graph_of(BODIES)
    assert [value.name for value in named(graph, "if").reads()] == ["p", "c", "p", "c", "x", "k"]
    assert [value.name for value in named(graph, "deep").reads()] == ["p", "c", "d", "d"]
    given_through = graph_of("""g (float[2] x, bool p) => (float[2] y) {
        [relu] c = Relu (x)
        [if] y = If (p) <then_branch = a () => (float[2] c) { [unused] d = Neg (x) },
                         else_branch = b () => (float[2] o) { o = Clip (x, , c) }> }""")
    assert [value.name for value in named(given_through, "if").reads()] == ["p", "x", "c", "x", "c"]


def test_functions_are_scopes_of_their_own():
    """A function sees nothing of the graph, and its nodes have its opsets."""
    model = model_of(
        HEADER
        + """g (float[2] x) => (float[2] y) { [call] y = my.twice (x) }
        <domain: "my", opset_import: ["": 11]>
        twice (x) => (y) { [double] y = Add (x, x) }"""
    )
    graph = Graph(load(model))
    double = named(graph, "double")
    assert double.scope.is_function
    assert double.opset == 11
    assert double.input(0) is not graph.main.values["x"]
    assert double.input(0).is_input
    assert double.output.is_output
    assert "my" in named(graph, "call").type
    assert readers(graph.main.values["x"]) == [("call", 0)]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [("", "Relu"), ("ai.onnx", "Relu"), ("com.microsoft", "com.microsoft::Relu"), ("ai.onnx.ml", "ai.onnx.ml::Relu")],
)
def test_the_type_carries_a_foreign_domain(domain, expected):
    """ONNX's own operators have their plain name; no other can be taken for one of them."""
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Relu", ["x"], ["y"], domain=domain)],
            "g",
            [onnx.helper.make_tensor_value_info("x", 1, [2])],
            [onnx.helper.make_tensor_value_info("y", 1, [2])],
        ),
        opset_imports=[onnx.helper.make_opsetid(domain, 9)],
    )
    (op,) = Graph(load(model)).ops()
    assert op.type == expected
    assert op.opset == 9


def test_labels():
    """A node without a name goes by its first output that has one."""
    graph = graph_of("""g (float[2, 3] x) => (float[2, 3] y) {
        _a, y = my.Two (x)
        [named] z = Relu (x) }""")
    assert [op.label for op in graph.ops()] == ["_a", "named"]


def test_fresh_names_are_new_everywhere():
    """No value, node or subgraph has it, and it is given once."""
    graph = graph_of(BODIES)
    for taken in ("x", "y", "c", "d", "q", "k", "deepest", "if"):
        assert graph.fresh_name(taken) == f"{taken}_1"
    assert graph.fresh_name("new") == "new"
    assert graph.fresh_name("new") == "new_1"


SHADOWS = """g (bool p, float[2] x, int64 n) => (float[2] y, float[2] z) {
    [relu] c = Relu (x)
    [loop] y = Loop (n, p, x) <body = a (int64 i, bool on, float[2] c) => (bool still, float[2] o) {
        still = Identity (on)
        [reads] d = Neg (c)
        [if] o = If (p) <then_branch = e () => (float[2] q) { [deep] q = Abs (c) },
                         else_branch = f () => (float[2] q) { [later] z = Abs (d) [other] q = Neg (z) }> }>
    [last] b = Neg (x)
    [end] z = Neg (b) }"""


def test_what_a_shadowed_name_touches():
    """All that makes or reads a value whose name a body has, too, and that it could read; a later one it could not."""
    graph = graph_of(SHADOWS)
    assert {op.label: op.shadowed for op in graph.ops() if op.shadowed} == {"relu": "c", "reads": "c", "deep": "c"}


@pytest.mark.parametrize(
    ("value", "name", "may"),
    [
        pytest.param("c", "z", False, id="a body in between has it"),
        pytest.param("x", "z", False, id="an input is there before all bodies"),
        pytest.param("b", "z", True, id="no body comes after"),
        pytest.param("y", "d", True, id="the body's own node makes it"),
        pytest.param("c", "b", True, id="no body has it"),
    ],
)
def test_a_name_that_a_value_may_take(value, name, may):
    """Not where a body that comes after the value has the name for one of its own."""
    graph = graph_of(SHADOWS)
    assert graph.may_be_called(graph.main.values[value], name) is may


def test_no_op_reads_what_it_cannot_see():
    """Whoever asks for it: the name means another value there, or none."""
    graph = graph_of(SHADOWS)
    with pytest.raises(AssertionError):
        graph.set_input(named(graph, "deep"), 0, graph.main.values["c"])
    with pytest.raises(AssertionError):
        graph.set_input(named(graph, "end"), 0, named(graph, "reads").output)
    with pytest.raises(AssertionError):
        graph.take_over(graph.main.values["c"], graph.main.values["z"])


def test_attributes():
    """An attribute that only the caller of a function knows is refused; all others have a default."""
    graph = graph_of("g (float[2] x) => (float[2] y) { [relu] y = LeakyRelu <alpha = 0.5> (x) }")
    op = named(graph, "relu")
    assert op.attribute("alpha") == 0.5
    assert op.attribute("beta") is None
    assert op.attribute("beta", 3) == 3


def test_what_reads_a_result_has_a_later_place():
    """Whether it is from the model, was put behind another, or is in a body."""
    graph = graph_of(BODIES)
    op = next(iter(graph.main.ops))
    for number in range(3):
        graph.add_op(op, onnx.helper.make_node("Relu", ["x"], [f"new{number}"]))
    ops = list(graph.ops())
    assert [op.label for op in ops[1:4]] == ["new2", "new1", "new0"]
    assert ops == sorted(ops, key=lambda op: op.place)


def test_the_collector_works_again_as_it_did():
    """What is set while an index is worked on is set back."""
    before = gc.get_threshold()
    with old_objects_left_alone():
        assert gc.get_threshold()[:2] == before[:2]
        assert gc.get_threshold() != before
    assert gc.get_threshold() == before


# --- cost ----------------------------------------------------------------------------------------------------


def calls(function: Callable[[], object]) -> int:
    """How many Python functions are called."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def chain(length: int, link: str, first: str = "Relu (x)", last: str = "Sigmoid") -> onnx.ModelProto:
    """The chain first -> link -> link … -> last; `@` in a link stands for the value before."""
    lines = [f"v0 = {first}"] + [f"v{i + 1} = {link.replace('@', f'v{i}')}" for i in range(length)]
    body = "\n".join([*lines, f"y = {last} (v{length})"])
    return model_of(f"{HEADER} g (float[1, 2, 3] x) => (float[1, 2, 3] y) {{ {body} }}")


@pytest.mark.parametrize(
    ("link", "first"),
    [
        pytest.param("Relu (@)", "Relu (x)", id="relus"),
        pytest.param("Identity (@)", "Relu (x)", id="identities"),
        pytest.param("Mul (@, {k: 2, 1 positive})", "Relu (x)", id="muls"),
        pytest.param("Mul (@, @)", "Relu (x)", id="squares"),
        pytest.param("Conv (@, {w: 2, 2, 1})", "Relu (x)", id="convs"),
        pytest.param("Sigmoid (@)", "Relu (x)", id="sigmoids"),
        pytest.param("Sqrt (@)", "Sqrt ({c: 2, 3 positive})", id="constants"),
    ],
)
def test_planning_takes_linear_time_on_long_chains(link, first):
    """Twice the nodes are at most a little over twice the calls."""
    models = [load(_unique(chain(length, link, first))) for length in (100, 200, 400)]
    few, more, most = (calls(lambda model=model: plan(model)) for model in models)
    assert most - more < 2.6 * (more - few)


def _unique(model: onnx.ModelProto) -> onnx.ModelProto:
    """The shorthand repeats its initializers under one name: keep one of each."""
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    del model.graph.initializer[:]
    model.graph.initializer.extend(known.values())
    return model


@pytest.mark.parametrize("length", [50, 500, 3000])
def test_a_long_way_up_is_gone_or_refused(length):
    """A positive scale far below its Conv: thousands of operators between do not exhaust the stack."""
    model = chain(length, "Relu (@)", "Conv (x, {w: 2, 2, 1})", "Relu")
    model.graph.node[-1].op_type = "Mul"
    model.graph.node[-1].input.append("k")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([[2.0], [3.0]], np.float32), "k"))
    planned, _ = folded(model)
    (entry,) = planned.entries
    assert entry.into or (length > 50 and entry.refusals[0].reason is Reason.TOO_FAR)


def test_a_long_way_up_ends_in_a_refusal_far_from_recursion():
    """Deeply nested alternatives end, too: a chain of sums of a value with itself has 2**n paths."""
    model = _unique(chain(60, "Add (@, @)", "Conv (x, {w: 2, 2, 1})", "Relu"))
    model.graph.node[-1].op_type = "Mul"
    model.graph.node[-1].input.append("k")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([[2.0], [3.0]], np.float32), "k"))
    assert calls(lambda: plan(load(model))) < 500_000
