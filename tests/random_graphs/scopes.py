"""Graphs inside of graphs: If, Loop and Scan bodies, and model-local functions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, ValueInfoProto, helper

from random_graphs.absorbers import ABSORBERS
from random_graphs.affines import AFFINES
from random_graphs.branches import keeping, same_conv
from random_graphs.builder import Attributes, Builder, Tensor, Unfit
from random_graphs.passers import POINTWISE

DOMAIN = "local.functions"


def _refuse_deep(b: Builder) -> None:
    if b.parent is not None and (b.parent.parent is not None or b.chance(0.7)):
        raise Unfit("deep enough")


def if_(b: Builder, x: Tensor) -> Tensor:
    """Both branches end in the same shape; they capture x, and perhaps weights, from outside."""
    _refuse_deep(b)
    condition = _condition(b)
    if b.chance(0.5):
        x = b.first_fit([*ABSORBERS, *AFFINES], x)
    bodies = list[GraphProto]()
    shape: tuple[int, ...] | None = None
    addends = _convs_outside(b, x) if b.chance(0.3) else []
    for _ in range(2):
        inner = Builder(b.world, b)
        inner.is_plain = b.chance(0.5)
        if bodies and b.chance(0.5):  # what the other branch calls its values is free here
            inner.free = _own_names(bodies[0])
        y = keeping(inner, x) if shape is None else _of_shape(inner, x, shape)
        if not bodies:
            y = _sum(inner, x, y, addends)
        if y is x:
            y = inner.node("Identity", x)
        shape = y.shape
        bodies.append(_body(inner, [], [y]))
    result = replace(x, name=b.name("if_result"), value=None)
    node = helper.make_node(
        "If", [condition.name], [result.name], b.name("n_If"), then_branch=bodies[0], else_branch=bodies[1]
    )
    b.raw(node, [result])
    _set_free(b, bodies)
    return b.first_fit(AFFINES, result) if b.chance(0.7) else result


def _convs_outside(b: Builder, x: Tensor) -> list[Tensor]:
    """What a body may add to what it makes."""
    if x.rank not in (3, 4, 5) or x.axis != 1:
        return []
    made = [b.first_fit([same_conv], x) for _ in range(b.integer(1, 2))]
    return [value for value in made if value.shape == x.shape]


def _sum(inner: Builder, x: Tensor, y: Tensor, addends: list[Tensor]) -> Tensor:
    """A sum of Convs of which some stand outside of the body; sometimes y is part of it."""
    if not addends or y.shape != x.shape:
        return y
    inside = [same_conv(inner, x)] if inner.chance(0.5) else []
    values = [value for value in (*addends, *inside) if value.shape == x.shape]
    total = y if len(values) < 2 or inner.chance(0.3) else values.pop()
    for value in values:
        total = inner.node(inner.pick(["Add", "Add", "Sub"]), total, value)
    return total


def _set_free(b: Builder, bodies: list[GraphProto]) -> None:
    """What comes behind may be called as the values in a body."""
    if b.chance(0.3):
        b.free |= set().union(*map(_own_names, bodies))


def _shadowing(b: Builder, hint: str) -> str:
    """The name of a value that a body is given: seldom one that it hides."""
    visible = b.visible()
    if not visible or not b.chance(0.3):
        return b.name(hint)
    b.world.shadows = True
    name: str = b.pick(visible)
    return name


def _condition(b: Builder) -> Tensor:
    """An input of the model; a constant where that cannot be reached."""
    outermost = b
    while outermost.parent is not None and not outermost.is_function:
        outermost = outermost.parent
    if outermost.is_function or b.chance(0.05):
        return b.store(np.array(b.chance(0.5)))
    return outermost.input((), "condition", np.bool_)


def _of_shape(b: Builder, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    y = b.first_fit([*AFFINES, *POINTWISE], keeping(b, x))
    if y.shape != shape:
        raise Unfit("the branches differ")
    return y


def _body(inner: Builder, inputs: list[Tensor], outputs: list[Tensor]) -> GraphProto:
    return helper.make_graph(
        inner.nodes,
        inner.name("body"),
        [_info(value) for value in inputs],
        [_info(value) for value in outputs],
        inner.initializers,
    )


def _own_names(body: GraphProto) -> set[str]:
    made = {name for node in body.node for name in node.output}
    given = {entry.name for entry in body.input}
    return made | given | {node.name for node in body.node} | {tensor.name for tensor in body.initializer}


def _info(value: Tensor) -> ValueInfoProto:
    return helper.make_tensor_value_info(value.name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def loop(b: Builder, x: Tensor) -> Tensor:
    """Twice through a body that keeps the shape."""
    _refuse_deep(b)
    if b.chance(0.4):
        x = b.first_fit(AFFINES, x)
    inner = Builder(b.world, b)
    step = Tensor(b.name("step"), (), np.dtype(np.int64))
    going = Tensor(b.name("going"), (), np.dtype(np.bool_))
    state = replace(x, name=_shadowing(b, "state"))
    on = inner.node("Identity", going)
    addends = _convs_outside(b, x) if b.chance(0.3) else []
    y = _sum(inner, state if inner.chance(0.5) else x, keeping(inner, state, 3), addends)
    if y is state:
        y = inner.node("Identity", state)
    body = _body(inner, [step, going, state], [on, y])
    result = replace(x, name=b.name("loop_result"))
    count, always = b.store(np.array(2, np.int64)), b.store(np.array(True))
    b.raw(
        helper.make_node("Loop", [count.name, always.name, x.name], [result.name], b.name("n_Loop"), body=body),
        [result],
    )
    _set_free(b, [body])
    return b.first_fit(AFFINES, result) if b.chance(0.5) else result


def scan(b: Builder, x: Tensor) -> Tensor:
    """Over the batch: the body sees values of one axis less."""
    _refuse_deep(b)
    if x.rank < 4:
        raise Unfit("too few axes")
    if b.chance(0.4):
        x = b.first_fit(AFFINES, x)
    inner = Builder(b.world, b)
    part = Tensor(_shadowing(b, "part"), x.shape[1:], x.dtype, max(x.axis - 1, 0))
    y = keeping(inner, part, 3)
    if y is part:
        y = inner.node("Identity", part)
    body = _body(inner, [part], [y])
    result = Tensor(b.name("scan_result"), (x.shape[0], *y.shape), x.dtype, x.axis)
    b.raw(helper.make_node("Scan", [x.name], [result.name], b.name("n_Scan"), body=body, num_scan_inputs=1), [result])
    return result


def function(b: Builder, x: Tensor) -> Tensor:
    """A model-local function, called once or twice: weights inside, or passed in by the caller."""
    _refuse_deep(b)
    if b.world.ir < 8 or b.is_function:
        raise Unfit("no functions here")
    if b.chance(0.4):
        x = b.first_fit([*ABSORBERS, *AFFINES], x)
    world = replace(b.world, names=set()) if b.chance(0.5) else b.world  # names inside are another world
    inner = Builder(world, b, is_function=True)
    inside = replace(x, name=inner.name("inside"))
    inner.inputs.append(inside)
    twice = b.chance(0.4)
    y = inside if not twice else keeping(inner, inside)
    if not twice:
        for _ in range(b.integer(1, 3)):
            y = inner.first_fit([*ABSORBERS, *AFFINES, *AFFINES, *POINTWISE], y)
    if y is inside:
        raise Unfit("an empty function")
    name = b.name("Block")
    opsets = [helper.make_opsetid("", b.opset)]
    listed = [value.name for value in inner.inputs]
    given_by_caller = _referred(b, inner.nodes) if b.chance(0.3) else {}
    b.world.functions.append(
        helper.make_function(DOMAIN, name, listed, [y.name], inner.nodes, opsets, list(given_by_caller))
    )
    result = x
    for call in range(1 + twice):
        given = [result, *inner.passed]
        result = replace(y, name=b.name("called"))
        b.raw(
            helper.make_node(
                name,
                [value.name for value in given],
                [result.name],
                b.name("n_call"),
                domain=DOMAIN,
                **{own: number * (1 + call) for own, number in given_by_caller.items()},
            ),
            [result],
        )
    return b.first_fit([*ABSORBERS, *AFFINES, *AFFINES], result) if b.chance(0.6) else result


def _referred(b: Builder, nodes: list[NodeProto]) -> Attributes:
    """Lets one attribute come from the caller; what the caller is to give."""
    attributes = [a for node in nodes for a in node.attribute if a.name in ("epsilon", "alpha") and a.f > 0]
    if not attributes:
        return {}
    chosen = b.pick(attributes)
    number = chosen.f
    chosen.CopyFrom(AttributeProto(name=chosen.name, type=AttributeProto.FLOAT, ref_attr_name="given"))
    return {"given": number}


SCOPES = [if_, if_, loop, scan, function, function]
