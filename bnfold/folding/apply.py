"""The only code that writes a graph: edits, new names, and what the affine node leaves behind."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx

from bnfold.folding.walk import Way
from bnfold.folding.ways import Choice, Rest
from bnfold.graph import Constant, Graph, Op, Value
from bnfold.model_io.tensors import copy_notes, is_packed, raw_size
from bnfold.ops import AddBehind, Assign, Detach, Edit, Moved, Omit, Retype, SetAttribute
from bnfold.ops.weights import Exact, Scaled

_SUFFIX = "_folded"


class Pending:
    """The bytes of a folded constant, computed when the model is written."""

    def __init__(self, constant: Constant) -> None:
        self.constant = constant

    @property
    def nbytes(self) -> int:
        return nbytes(self.constant)

    def chunks(self) -> Iterator[bytes | memoryview]:
        if is_packed(_tensor_like(self.constant)):
            yield onnx.numpy_helper.from_array(self.constant.array()).raw_data
            return
        for block in self.constant.blocks() if isinstance(self.constant, Scaled) else (self.constant.array(),):
            yield np.ascontiguousarray(block).reshape(-1).view(np.uint8).data


@dataclass
class Changes:
    """What one fold did to names and weights, the constants it made, and the nodes that it left or added."""

    renamed: dict[str, str] = field(default_factory=dict)
    copied: dict[str, int] = field(default_factory=dict)
    left: list[Op] = field(default_factory=list)
    wrote: list[str] = field(default_factory=list)


def nbytes(constant: Constant) -> int:
    """The size of a constant as it is stored; types under a byte are packed."""
    return raw_size(_tensor_like(constant)) or 0


def _content(constant: Constant) -> object:
    return constant.key() if isinstance(constant, Scaled | Exact) else constant


def _tensor_like(constant: Constant) -> onnx.TensorProto:
    return onnx.TensorProto(data_type=onnx.helper.np_dtype_to_tensor_dtype(constant.dtype), dims=constant.shape)


class Writer:
    """Carries out edits on a graph. Constants of its own making change in place while nothing else reads them."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._own: set[Value] = set()
        self._copies: dict[Hashable, Value] = {}

    def key(self, edit: Assign) -> Hashable:
        """Equal for constants of equal content that operators of one scope may share."""
        return edit.op.scope, _content(edit.constant)

    def copy_of(self, edit: Assign) -> Value | None:
        """A constant of this writer's making that has the content already."""
        value = self._copies.get(key := self.key(edit))
        constant = self._graph.constant(value) if value is not None and value.readers else None
        return value if value is not None and constant and key == (value.scope, _content(constant)) else None

    def fold(self, op: Op, source: Value, choice: Choice) -> Changes:
        """Carries out what was chosen for an affine node that reads ``source``."""
        changes = Changes(left=[op] if choice.rest is Rest.STAYS else [])
        moved = self._perform(choice.way.edits, changes)
        result = op.output
        if choice.rest is not Rest.STAYS:
            self._graph.remove(op)
        if choice.rest is Rest.GIVES_NAME:
            self._graph.take_over(source, result)
            moved.pop(source, None)
        elif choice.rest is Rest.GOES:
            self._graph.move_readers(result, source)
        self._rename(moved, changes)
        return changes

    def _perform(self, edits: Iterable[Edit], changes: Changes) -> dict[Value, None]:
        """Carries out edits; returns the values that now mean something else."""
        moved: dict[Value, None] = {}
        for edit in edits:
            match edit:
                case Assign():
                    self._assign(edit, changes)
                case Omit():
                    self._graph.omit_input(edit.op, edit.index)
                case AddBehind():
                    changes.left.append(self._add_behind(edit, changes))
                case SetAttribute():
                    _set_attribute(edit.op, edit.name, edit.value)
                case Retype():
                    self._retype(edit)
                case Moved():
                    moved[edit.value] = None
                case Detach():
                    self._detach(edit, moved)
        return moved

    def merge(self, way: Way) -> Changes:
        """Carries out a merge of two branches of a sum."""
        changes = Changes()
        self._rename(self._perform(way.edits, changes), changes)
        return changes

    def _detach(self, edit: Detach, moved: dict[Value, None]) -> None:
        kept, result = edit.add.data(edit.stays), edit.add.output
        self._graph.remove(edit.add)
        if edit.keeps_name:
            self._graph.take_over(kept, result)
            moved.pop(kept, None)
        else:
            self._graph.move_readers(result, kept)

    def _rename(self, moved: Iterable[Value], changes: Changes) -> None:
        for value in moved:
            old = value.name
            self._graph.rename(value, self._graph.fresh_name(_suffixed(old)))
            changes.renamed[old] = value.name

    def _assign(self, edit: Assign, changes: Changes) -> None:
        old = edit.op.input(edit.index)
        if (copy := self.copy_of(edit)) is not None:
            changes.wrote.append(copy.name)
            self._graph.set_input(edit.op, edit.index, copy)
            return
        is_own = old in self._own and len(old.readers) == 1 and not old.is_input
        if old is not None and is_own and self._graph.dtype(old) == edit.constant.dtype:
            self._graph.replace_constant(old, edit.constant, Pending(edit.constant))
            changes.wrote.append(old.name)
            return
        if old is not None and len(old.readers) > 1:
            changes.copied[old.name] = nbytes(edit.constant)
        hint = _suffixed(old.name) if old is not None else f"{edit.op.label}_bias"
        name = self._graph.fresh_name(hint)
        value = self._graph.add_constant(edit.op.scope, name, edit.constant, Pending(edit.constant))
        if old is not None and old.tensor is not None and value.tensor is not None:
            copy_notes(value.tensor, old.tensor)
        self._own.add(value)
        self._copies[self.key(edit)] = value
        changes.wrote.append(value.name)
        self._graph.set_input(edit.op, edit.index, value)

    def _retype(self, edit: Retype) -> None:
        op = edit.op
        for index in range(edit.inputs, len(op.inputs)):
            self._graph.set_input(op, index, None)
        op.inputs, op.outputs = op.inputs[: edit.inputs], op.outputs[:1]
        node = op.node
        del node.input[edit.inputs :], node.output[1:], node.attribute[:]
        node.op_type = op.type = edit.op_type
        op.forget_attributes()

    def _add_behind(self, edit: AddBehind, changes: Changes) -> Op:
        result = edit.op.output
        inner = self._graph.new_value(f"{result.name}_unshifted", like=result)
        name = self._graph.fresh_name(f"{edit.op.label}_shift")
        shift = self._graph.add_constant(edit.op.scope, name, edit.constant, Pending(edit.constant))
        self._own.add(shift)
        changes.wrote.append(shift.name)
        self._graph.set_output(edit.op, 0, inner)
        label = self._graph.fresh_name(f"{edit.op.label}_add")
        node = onnx.helper.make_node("Add", [inner.name, shift.name], [result.name], label)
        return self._graph.add_op(edit.op, node)


def _suffixed(name: str) -> str:
    """The hint for a name; of one that was made from such a hint the same, so that names do not grow with each fold."""
    stem, suffix, number = name.rpartition(_SUFFIX)
    is_made = suffix and (not number or (number[0] == "_" and number[1:].isdecimal()))
    return (stem if is_made else name) + _SUFFIX


def _set_attribute(op: Op, name: str, value: int | float | tuple[int, ...] | None) -> None:
    node = op.node
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(onnx.helper.make_attribute(name, value))
    op.forget_attributes()
