"""From a model that shows a fault to a small one that shows the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

from random_graphs.builder import Array
from random_graphs.evaluate import copied, run
from random_graphs.generate import Case
from random_graphs.properties import Discarded, check, usable

Values = dict[str, Array]


def kind(faults: tuple[str, ...]) -> str:
    """What sort of fault it is: the first one's words, without its numbers and names."""
    return re.sub(r"'[^']*'|[-\d.e+]+", "#", faults[0])[:60] if faults else ""


def shrunk(case: Case) -> tuple[Case, tuple[str, ...]]:
    """The smallest case that greedy cutting finds, and its faults."""
    faults = _faults(case)
    wanted = kind(faults)
    progress = bool(faults)
    while progress:
        progress = False
        for smaller in _smaller(case):
            found = _faults(smaller)
            if kind(found) == wanted:
                case, faults, progress = smaller, found, True
                break
    return case, faults


def _faults(case: Case) -> tuple[str, ...]:
    try:
        return check(case, usable(case)).faults
    except Discarded:
        return ()


def _smaller(case: Case) -> Iterator[Case]:
    values = _values(case)
    for change in _changes(case.model, values):
        model = copied(case.model)
        try:
            feeds = change(model)
        except (KeyError, IndexError, ValueError):
            continue
        _prune(model)
        if model.ByteSize() >= case.model.ByteSize() and len(model.graph.node) >= len(case.model.graph.node):
            continue
        names = {info.name for info in model.graph.input}
        kept = [{name: value for name, value in (feed | feeds).items() if name in names} for feed in case.feeds]
        yield replace(case, model=model, feeds=kept)


def _changes(model: ModelProto, values: Values) -> Iterator[Callable[[ModelProto], Values]]:
    constants = {tensor.name for tensor in model.graph.initializer}
    count = len(model.graph.node)
    if len(model.graph.output) > 1:
        yield from (partial(_only_output, name=entry.name, values=values) for entry in model.graph.output)
    for k in range(count):
        for name in model.graph.node[k].output:
            yield partial(_only_output, name=name, values=values)
    for k in reversed(range(count)):
        for name in model.graph.node[k].output:
            yield partial(_as_input, name=name, values=values)
    for k in range(count):
        if model.graph.node[k].input and all(name in constants or not name for name in model.graph.node[k].input):
            yield partial(_as_constant, index=k, values=values)
        if model.graph.node[k].op_type == "Constant":
            yield partial(_as_constant, index=k, values=values)
        for name in model.graph.node[k].input:
            if name in values and name not in constants:
                yield partial(_bypass, index=k, name=name, values=values)
    yield _without_notes


def _values(case: Case) -> Values:
    """Every value of the main graph, for the first feed."""
    model = copied(case.model)
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, 11, None) for name in names)
    return dict(zip(names, run(model, case.feeds[0]), strict=True)) | dict(case.feeds[0])


def _info(model: ModelProto, name: str, values: Values) -> onnx.ValueInfoProto:
    value = values[name]
    code: int = helper.np_dtype_to_tensor_dtype(value.dtype)
    if value.dtype == np.float64:
        code = next(
            (t.type.tensor_type.elem_type for t in model.graph.input if t.type.tensor_type.elem_type in (1, 10, 11)), 11
        )
    return helper.make_tensor_value_info(name, code, value.shape)


def _only_output(model: ModelProto, name: str, values: Values) -> Values:
    info = next((info for info in model.graph.output if info.name == name), None) or _info(model, name, values)
    info = onnx.ValueInfoProto.FromString(info.SerializeToString())
    del model.graph.output[:]
    model.graph.output.append(info)
    return {}


def _as_input(model: ModelProto, name: str, values: Values) -> Values:
    if any(info.name == name for info in model.graph.output):
        raise ValueError(name)
    info = _info(model, name, values)
    for node in model.graph.node:
        for index, made in enumerate(node.output):
            if made == name:
                node.output[index] = f"{name}__gone"
    model.graph.input.append(info)
    return {name: values[name].astype(helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))}


def _as_constant(model: ModelProto, index: int, values: Values) -> Values:
    name = model.graph.node[index].output[0]
    info = _info(model, name, values)
    array = values[name].astype(helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    del model.graph.node[index]
    return {}


def _bypass(model: ModelProto, index: int, name: str, values: Values) -> Values:
    node = model.graph.node[index]
    made = node.output[0]
    if values[made].shape != values[name].shape or any(info.name == made for info in model.graph.output):
        raise ValueError(name)
    del model.graph.node[index]
    for other in model.graph.node:
        for k, read in enumerate(other.input):
            if read == made:
                other.input[k] = name
    return {}


def _without_notes(model: ModelProto) -> Values:
    del model.graph.value_info[:]
    return {}


def _prune(model: ModelProto) -> None:
    """Takes out what no output needs."""
    graph = model.graph
    needed = {info.name for info in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
            needed.update(_captured(node))
    kept.reverse()
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    for entries in (graph.initializer, graph.input):
        for index in reversed(range(len(entries))):
            if entries[index].name not in needed:
                del entries[index]
    called = {node.op_type for node in graph.node}
    for index in reversed(range(len(model.functions))):
        if model.functions[index].name not in called:
            del model.functions[index]


def _captured(node: onnx.NodeProto) -> set[str]:
    names: set[str] = set()
    for attribute in node.attribute:
        if attribute.HasField("g"):
            names.update(info.name for info in attribute.g.output)
            for inner in attribute.g.node:
                names.update(inner.input)
                names |= _captured(inner)
    return names
