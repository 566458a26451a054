"""Two models node by node: what is gone, what has changed and in what, what has come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import onnx
from onnx import AttributeProto, NodeProto

from bnfold.model_io.tensors import all_nodes
from bnfold.optimization.inventory import name_of
from bnfold.page import Row, Table

_NOTHING = "nothing"
_MOST_OF_A_VALUE = 60  # characters
_Key = Callable[[NodeProto], Hashable]
_Pairs = list[tuple[NodeProto, NodeProto]]


@dataclass(frozen=True)
class NodeChange:
    """What became of one node.

    Attributes:
        change: removed, changed or added.
        node: Its name, or that of its first output where it has none; before, if it was there.
        op_type: Its type, before.
        details: What is different of one that has changed; what one that was added reads and makes.
    """

    change: str
    node: str
    op_type: str
    details: tuple[str, ...] = ()


def difference(before: onnx.ModelProto, after: onnx.ModelProto) -> tuple[NodeChange, ...]:
    """What is gone, has changed and has come, each in the order of the graph; values of weights are not compared."""
    pairs, gone, come = _matched(list(all_nodes(before)), list(all_nodes(after)))
    changed = ((old, details) for old, new in pairs if (details := tuple(_details(old, new))))
    return (
        *(NodeChange("removed", _label(node), name_of(node)) for node in gone),
        *(NodeChange("changed", _label(node), name_of(node), details) for node, details in changed),
        *(NodeChange("added", _label(node), name_of(node), (_wiring(node),)) for node in come),
    )


def difference_table(changes: Iterable[NodeChange]) -> Table:
    """A row for each node."""
    rows: tuple[Row, ...] = tuple((each.change, each.node, each.op_type, each.details) for each in changes)
    return Table(("change", "node", "operator", "what"), rows, is_headed=False)


def _label(node: NodeProto) -> str:
    return node.name or next(filter(None, node.output), "")


_ALIKE: tuple[_Key, ...] = (
    lambda node: node.name or None,
    lambda node: (node.op_type, node.output[0]) if node.output else None,
    lambda node: (node.op_type, node.input[0]) if node.input else None,
)
"""What makes two nodes the same, the surest first: names, then what they make, then what they read."""


def _matched(
    before: Sequence[NodeProto], after: Sequence[NodeProto]
) -> tuple[_Pairs, Sequence[NodeProto], Sequence[NodeProto]]:
    """Nodes that are the same in both, and those that are in one of them only."""
    places = {id(node): place for place, node in enumerate(before)}
    pairs: _Pairs = []
    for key in _ALIKE:
        waiting: dict[Hashable, list[NodeProto]] = defaultdict(list)
        for node in reversed(after):
            waiting[key(node)].append(node)
        waiting.pop(None, None)
        found = {id(old): (old, waiting[key(old)].pop()) for old in before if waiting.get(key(old))}
        pairs += found.values()
        taken = {id(new) for _, new in found.values()}
        before = [node for node in before if id(node) not in found]
        after = [node for node in after if id(node) not in taken]
    return sorted(pairs, key=lambda pair: places[id(pair[0])]), before, after


def _details(old: NodeProto, new: NodeProto) -> Iterator[str]:
    """In what two nodes are different."""
    if name_of(old) != name_of(new):
        yield f"is now {name_of(new)}"
    for what, ours, theirs in (("input", old.input, new.input), ("output", old.output, new.output)):
        for index, (one, other) in enumerate(zip_longest(ours, theirs, fillvalue="")):
            if one != other:
                yield f"{what} {index}: {one or _NOTHING} → {other or _NOTHING}"
    attributes, others = ({each.name: each for each in node.attribute} for node in (old, new))
    for name in dict.fromkeys([*attributes, *others]):
        one, other = (_value(found.get(name)) for found in (attributes, others))
        if one != other:
            yield f"{name}: {one} → {other}"


def _value(attribute: AttributeProto | None) -> str:
    """An attribute as a few characters; of a tensor or a graph only that there is one."""
    if attribute is None:
        return _NOTHING
    try:
        value = attribute.ref_attr_name or onnx.helper.get_attribute_value(attribute)
    except ValueError:  # a type that this onnx does not know
        value = None
    if value is None:  # old exporters leave the type unset
        return "of no known type"
    if not isinstance(value, int | float | bytes | str | Sequence) or attribute.graphs or attribute.tensors:
        return type(value).__name__
    return str(value.decode(errors="replace") if isinstance(value, bytes) else value)[:_MOST_OF_A_VALUE]


def _wiring(node: NodeProto) -> str:
    reads, makes = (", ".join(filter(None, names)) or _NOTHING for names in (node.input, node.output))
    return f"reads {reads}; makes {makes}"
