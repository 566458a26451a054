"""Shapes for given shapes of the inputs, found in one pass."""

import pytest
from verification.helpers import parsed

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification.float64.evaluate import Evaluator
from bnfold.verification.regions.scenes import Scene, scenes
from bnfold.verification.regions.walk import walked

FLATTENED = """
    s{0} = Shape (x{0}) b{0} = Gather <axis = 0> (s{0}, zero) u{0} = Unsqueeze (b{0}, axes)
    t{0} = Concat <axis = 0> (u{0}, rest) r{0} = Reshape (x{0}, t{0}) x{1} = Transpose <perm = [0, 2, 1]> (r{0})
"""
COMPUTED = {
    "sizes behind sizes": f"""n (float[N, 6, 4] x0) => (float[N, A, B] x9)
        <int64 zero = {{0}}, int64[1] axes = {{0}}, int64[2] rest = {{-1, 3}}>
        {{ {"".join(FLATTENED.format(k, k + 1) for k in range(9))} }}""",
    "ConstantOfShape": """n (float[N, 6, 4] x0) => (float[N, 6, 4] y) <int64[3] ones = {1, 1, 1}> {
        s = Shape (x0) c = ConstantOfShape <value = int64[1] {2}> (s) m = Equal (s, ones) w = Where (m, s, ones)
        e = Expand (x0, w) k = ReduceMax <keepdims = 0> (c) f = Cast <to = 1> (k) y = Mul (e, f) }""",
    "factors": """n (float[N, 6, 4] x0) => (float[N, 6, H] y) {
        n = Constant <value = float[0] {}> () f = Constant <value_floats = [1.0, 1.0]> ()
        d = Constant <value_float = 2.5> () a = Constant <value_ints = [0]> () u = Unsqueeze (d, a)
        g = Concat <axis = 0> (f, u) y = Resize (x0, n, g) }""",
    "parts": """n (float[N, 6, 4] x0) => (float[N, 4, 4] y) <int64[2] sizes = {2, 4}> {
        s = Shape <start = 1> (x0) a, b = Split <axis = 1> (x0, sizes) y = Softmax (b) }""",
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in COMPUTED.items()])
@pytest.mark.parametrize("rows", [1, 5])
def test_computed_sizes_are_those_of_a_run(text, rows):
    """What one pass says of each value is what evaluating the model makes."""
    graph = Graph(load(parsed(text)))
    evaluator, scene = Evaluator(graph.model), Scene(graph, {"x0": (rows, 6, 4)}, is_small=False)
    found, is_refused = walked(graph, scene.inputs, evaluator)
    assert not is_refused
    values = [value for op in graph.main.live_ops() for value in op.outputs]
    run = {graph.main.own(value.name): shape for value, shape in scene._as_run().items()}
    assert {value: found[value] for value in values} == {value: run[value] for value in values}
    assert not scene.unknown


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("t = Constant <value_ints = [-1, 50176]> () y = Reshape (x, t)", id="as-many-elements"),
        pytest.param(
            "p = MaxPool <kernel_shape = [32, 1], strides = [32, 32]> (x) y = Add (p, c)",
            id="broadcast",
        ),
        pytest.param("p = MaxPool <kernel_shape = [200, 1]> (x) y = Relu (p)", id="window"),
    ],
)
def test_a_size_that_an_operator_does_not_take_is_none_to_try(body):
    """No small size is tried where an operator refuses it, and nothing is evaluated to find that out."""
    sevens = ", ".join("1" * 7)
    graph = Graph(load(parsed(f"n (float[2, 3, 224, 224] x) => (float y) <float[7] c = {{{sevens}}}> {{ {body} }}")))
    assert walked(graph, {"x": (2, 3, 33, 41)}, Evaluator(graph.model))[1]
    assert {scene.inputs["x"][2:] for scene in scenes(graph, [{"x": (2, 3, 224, 224)}])} == {(224, 224)}


def test_what_a_caller_may_give_decides_no_shape():
    """The default of an input is not what the model computes with."""
    text = """n (float[2, 6] x, int64[2] t = {3, 4}) => (float[A, B] y) { y = Reshape (x, t) }"""
    model = parsed(text)
    assert [entry.name for entry in model.graph.input] == ["x", "t"]
    graph = Graph(load(model))
    assert graph.main.own("y") not in walked(graph, {"x": (2, 6)}, Evaluator(graph.model))[0]


def test_values_in_bodies_have_shapes_too():
    """Where nothing walks, inference of the whole model goes on to tell."""
    text = """n (float[N, 3] x, bool c) => (float[N, 3] y) {
        y = If (c) <then_branch = a () => (float[N, 3] p) { q = Relu (x) p = Neg (q) },
                    else_branch = b () => (float[N, 3] r) { r = Neg (x) }> }"""
    graph = Graph(load(parsed(text)))
    scene = Scene(graph, {"x": (4, 3), "c": ()}, is_small=False)
    inner = next(scope for scope in graph.scopes if "q" in scope.values)
    assert scene.shape(inner.own("q")) == (4, 3)
