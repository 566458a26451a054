"""What hides in a graph hides in the branch of an If or the body of a Loop as well."""

import onnx
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper
from verification import test_bounds, test_operators, test_sizes_and_integers, test_unreached
from verification.helpers import Rewriting

from bnfold.verification import Verdict, verify

OLDEST = 13  # in which Loop and If are as they are here
CASES = [
    case
    for case in (
        *test_unreached.CASES,
        *test_sizes_and_integers.CASES,
        *test_bounds.OTHERS,
        *test_bounds.CHOICES,
        *test_operators.UNSEEN,
        Rewriting(
            "rounding to half the digits",
            "n (float[N, 8] x) => (float[N, 8] y) {@ y = Identity (~a)}",
            *(
                "~a = Neg (x)",
                "~h = Cast <to = 10> (x) ~n = Neg (~h) ~a = Cast <to = 1> (~n)",
                "~b = Neg (x) ~a = Identity (~b)",
            ),
        ),
    )
    if case.opset >= OLDEST and "seq(" not in case.model and "branch" not in case.what
]


def body_of(graph: GraphProto, prefix: str) -> GraphProto:
    """The nodes of a graph under names of their own; what they read stays outside."""
    made = {name: prefix + name for node in graph.node for name in node.output if name}
    body = GraphProto(name=f"{prefix}body", node=graph.node, output=graph.output)
    for node in body.node:
        node.input[:] = [made.get(name, name) for name in node.input]
        node.output[:] = [made.get(name, name) for name in node.output]
    for output in body.output:
        output.name = made[output.name]
    return body


def in_branch(model: ModelProto) -> ModelProto:
    """The model in both branches of an If on a further input."""
    graph = model.graph
    branches = {f"{name}_branch": body_of(graph, f"{name}_") for name in ("then", "else")}
    node = helper.make_node("If", ["either"], [entry.name for entry in graph.output], **branches)
    graph.input.append(helper.make_tensor_value_info("either", TensorProto.BOOL, []))
    del graph.node[:]
    graph.node.append(node)
    return model


def in_loop(model: ModelProto) -> ModelProto:
    """The model twice in a Loop, whose outputs are stacked."""
    graph = model.graph
    body = body_of(graph, "loop_")
    body.input.append(helper.make_tensor_value_info("turn", TensorProto.INT64, []))
    body.input.append(helper.make_tensor_value_info("goes", TensorProto.BOOL, []))
    body.node.append(helper.make_node("Identity", ["goes"], ["goes_on"]))
    body.output.insert(0, helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []))
    node = helper.make_node("Loop", ["turns", ""], [entry.name for entry in graph.output], body=body)
    graph.initializer.append(helper.make_tensor("turns", TensorProto.INT64, [], [2]))
    for entry in graph.output:
        entry.type.tensor_type.shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=2))
    del graph.node[:]
    graph.node.append(node)
    return model


@pytest.mark.parametrize("put", [in_branch, in_loop])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_found_there(case: Rewriting, put):
    """And the correct twin is as good there as outside."""
    assert verify(*map(put, case.wrongly()), run=False).verdict is not Verdict.EQUIVALENT
    outside = verify(*case.rightly(), run=False).verdict
    assert verify(*map(put, case.rightly()), run=False).verdict is outside
