"""The affine nodes of a graph: what each does, and what a fold has left over of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bnfold.affine import Affine
from bnfold.batchnorm import is_batchnorm
from bnfold.folding.walk import malformed_is_refused
from bnfold.graph import Graph, Op, Value
from bnfold.model_io import Model
from bnfold.model_io.tensors import all_tensors, raw_size
from bnfold.ops import RULES
from bnfold.reasons import Reason, Refused


class Remainder(NamedTuple):
    """What is left over of a model; the less the better, and the first that differs counts.

    Attributes:
        affines: The affine nodes, of whatever type: a BatchNormalization in place of a Sub and a Div is one less.
        batchnorms: How many of them are BatchNormalizations.
        nodes: All nodes, but for those that compute constants: a runtime does so once.
        nbytes: The size of all constants.
    """

    affines: int
    batchnorms: int
    nodes: int
    nbytes: int


def is_affine(op: Op) -> bool:
    """Whether it is of a type that may be one."""
    return op.type in RULES and RULES[op.type].affine is not None


def affine_of(op: Op) -> tuple[Value, Affine]:
    """The data input of an affine node and what the node does to it.

    Raises:
        Refused: It is none, or none that can be read.
    """
    read = RULES[op.type].affine
    assert read is not None
    with malformed_is_refused(op):
        index, affine = read(op)
    op.output  # noqa: B018 -- refuses where it is omitted
    if len(affine.axes) > 1:
        raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected="one axis")
    return op.data(index), affine


def remainder(model: Model) -> Remainder:
    """Counts what is left over of a model."""
    graph = Graph(model)
    ops = list(_computing(graph))
    affines = list(filter(is_readable, ops))
    nbytes = sum(raw_size(tensor) or 0 for tensor in all_tensors(model.proto))
    return Remainder(len(affines), sum(map(is_batchnorm, affines)), len(ops), nbytes)


def _computing(graph: Graph) -> Iterator[Op]:
    for op in graph.ops():
        if not all(made is None or graph.constant(made) is not None for made in op.outputs):
            yield op


def is_readable(op: Op) -> bool:
    """Whether it is an affine node, as far as is known now."""
    try:
        return is_affine(op) and bool(affine_of(op))
    except Refused:
        return False
