"""What many nodes cost: counted, not timed."""

import gc
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from helpers import model_of
from onnx import helper, numpy_helper

from bnfold.folding import Plan, plan
from bnfold.folding.planner import Planner
from bnfold.folding.record import Outcome
from bnfold.folding.walk import Walk
from bnfold.graph import Graph, Op, Use, Value
from bnfold.graph.shapes import Shapes
from bnfold.model_io import load
from bnfold.ops import RULES
from bnfold.reasons import Refused


def batchnorms(count: int, join: str, *, conv: bool = False) -> onnx.ModelProto:
    """BatchNormalizations that can go nowhere up, joined by one Concat or by Adds; nor down, unless a Conv follows."""
    nodes, weights = [], []
    for number in range(count):
        names = [f"{kind}{number}" for kind in ("gamma", "beta", "mean", "var")]
        weights += [numpy_helper.from_array(np.full(2, 0.5 + number, np.float32), name) for name in names]
        nodes.append(helper.make_node("Tanh", ["x"], [f"t{number}"]))
        nodes.append(helper.make_node("BatchNormalization", [f"t{number}", *names], [f"b{number}"]))
    if join == "Concat":
        nodes.append(helper.make_node("Concat", [f"b{number}" for number in range(count)], ["sum"], axis=1))
    else:
        sums = ["b0", *(f"s{number}" for number in range(1, count - 1)), "sum"]
        nodes += [helper.make_node("Add", [sums[k - 1], f"b{k}"], [sums[k]]) for k in range(1, count)]
    if conv:
        weights.append(numpy_helper.from_array(np.ones((2, 2 * count, 1, 1), np.float32), "w"))
    nodes.append(helper.make_node(*(("Conv", ["sum", "w"]) if conv else ("Tanh", ["sum"])), ["y"]))
    ports = [helper.make_tensor_value_info(name, 1, [1, None, 4, 4]) for name in "xy"]
    ports[0].type.tensor_type.shape.dim[1].dim_value = 2
    graph = helper.make_graph(nodes, "many", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """Counts calls of rules, and questions for a shape."""
    counts: Counter[str] = Counter()

    def counted(name, function):
        def call(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(Shapes, "of", counted("shape", Shapes.of))
    for op_type in ("Concat", "Conv"):
        for ability in ("lift", "sink", "meet", "absorb_input", "absorb_output"):
            if rule := getattr(RULES[op_type], ability):
                monkeypatch.setitem(RULES, op_type, replace(RULES[op_type], **{ability: counted("rule", rule)}))
    return counts


@pytest.mark.parametrize("conv", [False, True], ids=["refused", "folded"])
def test_rules_and_shapes_are_asked_in_proportion(calls, conv):
    """Twice the BatchNormalizations before one Concat, twice the questions."""
    taken = []
    for count in (60, 120):
        calls.clear()
        planned = plan(load(batchnorms(count, "Concat", conv=conv)))
        assert planned.count(Outcome.FOLDED) == count * conv
        taken.append(dict(calls))
    assert all(taken[1][what] <= 2.1 * few for what, few in taken[0].items()), taken


@pytest.mark.parametrize("blocks", [1, 20])
def test_another_order_is_tried_once(blocks, monkeypatch):
    """For the whole model, however many affines in it want each other; not where every one goes into a Conv."""
    orders = Counter[str]()
    fold_all = Planner.fold_all
    monkeypatch.setattr(Planner, "fold_all", lambda planner: [orders.update(["tried"]), fold_all(planner)])
    assert plan(load(batchnorms(blocks, "Concat", conv=True))).count(Outcome.FOLDED) == blocks
    assert orders.pop("tried") == 1
    chain = "".join(
        f"s{k} = Sub (y{k}, {{mean: 3, 1, 1}}) d{k} = Div (s{k}, {{std: 3, 1, 1 positive}})"
        f"b{k} = BatchNormalization (d{k}, {{bn: 3}}) y{k + 1} = Tanh (b{k})"
        for k in range(blocks)
    )
    model = model_of(
        f'<ir_version: 10, opset_import: ["": 22]> g (T[2, 3, 4, 4] y0) => (T[2, 3, 4, 4] y{blocks}) {{{chain}}}'
    )
    assert plan(load(model)).nodes_after == 2 * blocks
    assert orders["tried"] == 3  # both, and a run over the result, which finds nothing


def test_memory_and_names_are_in_proportion():
    """Each affine varies over all channels of the Conv, and what is known of it afterwards is no larger for that."""
    taken = []
    for count in (100, 400):
        model = load(batchnorms(count, "Concat", conv=True))
        tracemalloc.start()
        planned = plan(model)
        gc.collect()  # what waits for it is not known any more
        taken.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        names = {name for node in planned.model.proto.graph.node for name in node.output}
        assert max(map(len, names)) < len(f"sum_folded_{count}_")
        assert planned.count(Outcome.FOLDED) == count
    assert taken[1] <= 6 * taken[0], taken  # 16 times would be the square


def test_nodes_of_one_name_get_names_without_a_search():
    """Each of many nodes that are called alike gets a bias, and asks for a free name once or twice."""
    asked = Counter[str]()

    class Names(set[str]):
        def __contains__(self, name: object) -> bool:
            asked["name"] += 1
            return super().__contains__(name)

    taken = []
    for count in (50, 100):
        graph = Graph(load(batchnorms(2, "Add")))
        graph.names = Names(graph.names)
        assert len({graph.fresh_name("conv_bias") for _ in range(count)}) == count
        taken.append(asked.pop("name"))
    assert taken[1] <= 2.1 * taken[0], taken


def test_one_input_of_unknown_size_is_asked_for_in_proportion(calls):
    """Every BatchNormalization is refused for it, and none asks for the others once more."""
    taken = []
    for count in (60, 120):
        proto = batchnorms(count, "Concat", conv=True)
        proto.graph.node[-2].input.append("unknown")
        proto.graph.node.insert(0, helper.make_node("Odd", ["x"], ["unknown"], domain="odd"))
        proto.opset_import.append(helper.make_opsetid("odd", 1))
        calls.clear()
        assert plan(load(proto)).count(Outcome.KEPT) == count
        taken.append(calls["shape"])
    assert taken[1] <= 2.1 * taken[0], taken


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there contextlib itself keeps exceptions in a cycle")
@pytest.mark.parametrize("join", ["Concat", "Add"])
def test_a_walk_leaves_nothing_to_the_collector(join):
    """The command line runs without one: a cycle through an exception would keep every walk and its affines."""
    model = load(batchnorms(20, join))
    gc.collect()
    gc.disable()
    try:
        assert isinstance(plan(model), Plan)
        left = [type(found) for found in gc.get_objects() if isinstance(found, Walk | Refused)]
    finally:
        gc.enable()
    assert left == []


def test_nodes_are_not_copied_when_they_are_written_back():
    """Those that stay are the same messages, in their order; those that are new stand where they belong."""
    graph = Graph(load(batchnorms(4, "Concat")))
    tanhs = [op for op in graph.ops() if op.type == "Tanh"]
    for op in tanhs[:2]:
        graph.move_readers(op.output, graph.main.values["x"])
        graph.remove(op)
    for label in ("first", "second"):
        graph.add_op(tanhs[2], helper.make_node("Relu", ["t2"], [label], label))
    kept = [op.node for op in graph.ops()]
    graph.commit()
    nodes = graph.main.proto.node
    assert list(nodes) == kept
    labels = [node.name or node.output[0] for node in nodes]
    assert labels == ["b0", "b1", "t2", "second", "first", "b2", "t3", "b3", "sum", "y"]
    same = [node is old for node, old in zip(nodes, kept, strict=True)]
    assert same == [label not in ("first", "second") for label in labels]


def test_readers_come_and_go_in_order():
    """However many there are."""
    graph = Graph(load(batchnorms(2, "Concat")))
    op = next(iter(graph.ops()))
    assert isinstance(op, Op)
    value = Value("value", graph.main)
    uses = [Use(op, index) for index in range(9)]
    expected: list[Use] = []
    for use in uses:
        value.gain(use)
        expected.append(use)
        assert list(value.readers) == expected
    for use in (uses[4], uses[8], *uses[:4], *uses[5:8]):
        value.lose(use)
        expected.remove(use)
        assert list(value.readers) == expected
    value.gain(uses[0])
    assert list(value.readers) == uses[:1]
    for few in range(1, 5):
        value = Value("value", graph.main)
        for use in uses[:few]:
            value.gain(use)
        value.lose(uses[0])
        assert list(value.readers) == uses[1:few]
