"""Shapes for all values of a model: as declared, and as small as the model allows.

A convolution computes at 33x43 what it computes at 224x224, so changed regions are evaluated on small inputs: odd ones,
so that padding and strides that do not divide are met.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice

import numpy as np
import onnx

from bnfold.graph import Graph, Value
from bnfold.graph.ports import Port, required_inputs
from bnfold.graph.sizes import odd_size
from bnfold.limits import NEVER, Deadline
from bnfold.model_io import Model
from bnfold.model_io.tensors import type_name
from bnfold.verification.float64.evaluate import Evaluator
from bnfold.verification.float64.kernel import as_real
from bnfold.verification.regions.walk import Shape, walked

_SMALL_SIZES = ((33, 43), (32, 34), (75, 91), (96, 64), (128, 161))  # for two spatial axes, where the model allows it
_MOST_SMALL = 3
_MODERATE = 10_000  # entries in the inputs, as in a 56x56 image
_ROWS = 4, 5, 3  # samples at the first of these sizes, at the second, and at the others
_FEW_ROWS, _MANY = 3, 30_000  # samples where the inputs have so many entries
_MOST_DECLARED = 3
_NONE = False, 0
_LONGEST, _MOST_STRETCHED = 4096, 1 << 21  # positions, and entries in the inputs

SHORT = 5
"""Up to here, a length that is asked for is meant to be just that."""


class Scene:
    """The shape of every value, for one choice of the shapes of the inputs.

    Args:
        graph: The model.
        inputs: The shapes of the inputs.
        ports: The inputs, with the sizes that the user states; by default as the model declares them.
        is_small: Whether they are smaller than declared, on purpose.
        deadline: For evaluating the model where shapes cannot be inferred.

    Attributes:
        is_allowed: Whether these are shapes that the models are compared for.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Mapping[str, Shape],
        ports: Sequence[Port] = (),
        *,
        is_small: bool,
        deadline: Deadline = NEVER,
    ) -> None:
        self.deadline = deadline
        self.is_small = is_small
        self.is_allowed = not is_small or all(
            port.accepts(replace(port, shape=inputs.get(port.name))) for port in ports
        )
        self.ports = ports
        self.inputs = dict(inputs)
        self._graph = graph

    def shape(self, value: Value) -> Shape | None:
        """The shape of a value of the model, None where it is not known."""
        known = self._inferred(value)
        return self._measured.get(self._twin(value)) if known is None else known

    @cached_property
    def faults(self) -> tuple[bool, int]:
        """Whether an operator does not take what these shapes come to; else, how many values have no elements.

        What a node holds has none at any size, as the roi of a Resize that needs none.
        """
        if self.is_refused:
            return True, 0
        return False, sum(0 in (self._inferred(value) or ()) for value in self._made())

    @property
    def is_refused(self) -> bool:
        """Whether an operator does not take what these shapes come to."""
        return self._walked[1]

    @cached_property
    def stated(self) -> Scene:
        """The same, but where the model, or the user, states a size."""
        inputs = {
            port.name: tuple(
                dim if isinstance(dim, int) else size
                for dim, size in zip(port.shape, self.inputs[port.name], strict=True)
            )
            for port in self.ports
            if port.shape is not None and port.name in self.inputs
        }
        inputs = {**self.inputs, **inputs}
        return Scene(self._graph, inputs, self.ports, is_small=self.is_small, deadline=self.deadline)

    @cached_property
    def _walked(self) -> tuple[dict[Value, Shape], bool]:
        return walked(self._graph, self.inputs, Evaluator(self._graph.model, self.deadline))

    @cached_property
    def _twins(self) -> Graph:
        return Graph(_with_inputs(self._graph.model, self.inputs))

    def _twin(self, value: Value) -> Value:
        return self._twins.scopes[value.scope.number].own(value.name)

    def _inferred(self, value: Value) -> Shape | None:
        if value.is_input and value.scope.parent is None and value.name in self.inputs:
            return self.inputs[value.name]
        if (walked := self._walked[0].get(value)) is not None:
            return walked
        shape = self._twins.shape(self._twin(value))  # in a body, say, where nothing walks
        known = [size for size in shape or () if isinstance(size, int)]
        return tuple(known) if shape is not None and len(known) == len(shape) else None

    def _made(self) -> Iterator[Value]:
        """What operators compute outside bodies."""
        ops = (op for op in self._graph.main.live_ops() if op.type != "Constant")
        return (value for op in ops for value in op.outputs if value is not None)

    @cached_property
    def _measured(self) -> dict[Value, Shape]:
        """Of values whose shape cannot be inferred: as it comes out in a run."""
        try:
            return self._as_run()
        except (MemoryError, ValueError):  # numpy knows no array of 2^63 bytes, and no size below zero
            return {}

    def _as_run(self) -> dict[Value, Shape]:
        random = np.random.default_rng(0)
        feed = {
            port.name: random.standard_normal(self.inputs[port.name]).astype(
                as_real(onnx.helper.tensor_dtype_to_np_dtype(port.elem_type))
            )
            for port in required_inputs(self._twins.model)
            if port.kind == "tensor" and type_name(port.elem_type) not in ("", "STRING")
        }
        return Evaluator(self._twins.model, self.deadline).shapes(self._twins, feed)

    @cached_property
    def unknown(self) -> int:
        """How many values have no known shape."""
        return sum(self.shape(value) is None for value in self._made())

    def dtype(self, value: Value) -> np.dtype[np.generic] | None:
        """The element type of a value, None where it is not known."""
        return self._graph.dtype(value)


def scenes(
    graph: Graph,
    candidates: Iterable[Mapping[str, Shape]],
    ports: Sequence[Port] = (),
    deadline: Deadline = NEVER,
) -> list[Scene]:
    """Some small scenes where the model allows them; then the declared shapes, some of them if several are possible.

    The smallest come first, and the last small one is as large as they get: deep in a network, the others may have
    shrunk to less than a kernel.

    Args:
        graph: The model.
        candidates: Shapes of its inputs, the most sensible first.
        ports: The inputs, with the sizes that the user states; by default as the model declares them.
        deadline: For evaluating the model where shapes cannot be inferred.
    """
    full = list[Scene]()
    for shapes in candidates:
        full.append(Scene(graph, shapes, ports, is_small=False, deadline=deadline))
        if sum(scene.faults == _NONE for scene in full) == _MOST_DECLARED:
            break
    fewest = min(scene.faults for scene in full)
    full = [scene for scene in full if scene.faults == fewest][:_MOST_DECLARED]

    def fit(sizes: Iterable[Mapping[str, Shape]]) -> list[Scene]:
        """Those that are no worse than the declared ones: the first of them, and the last."""
        others = [shapes for shapes in sizes if shapes != full[0].inputs]
        made = [Scene(graph, shapes, ports, is_small=True, deadline=deadline) for shapes in others]
        ends = (made, _MOST_SMALL - 1), (made[::-1], 1)
        return list(dict.fromkeys(scene for some, most in ends for scene in islice(filter(is_fit, some), most)))

    def is_fit(scene: Scene) -> bool:
        # a size at which more shapes are unknown is one that the model was not made for
        return scene.faults <= fewest and (not scene.unknown or scene.unknown <= min(other.unknown for other in full))

    declared = full[0].inputs
    small = fit(_smaller(graph.model, declared, few=False))
    small = small or fit(_smaller(graph.model, declared, few=True))  # where a body states a number of samples
    small = small or fit(_with_rows(graph.model, declared))
    others = _varied(ports or required_inputs(graph.model), [scene.inputs for scene in small or full[:1]])
    if varied := fit(others)[:1]:  # in the place of the first: no tool knows such a size by heart
        usual = Scene(graph, declared, ports, is_small=True, deadline=deadline)
        small = [*varied, *(small[1:] or small or [usual])]
    return [*small, *full]


def taken(stage: Sequence[Scene]) -> Mapping[str, Shape] | None:
    """Of several declared shapes the first that no operator seems to refuse."""
    declared = [scene for scene in stage if not scene.is_small]
    fit = (scene.inputs for scene in declared if not scene.is_refused)
    return next(fit, None) if len(declared) > 1 else None


def stretched(graph: Graph, base: Scene, length: int, *, samples: bool = False) -> list[Scene]:
    """The same shapes, but at least so long wherever the model leaves it open; none if that is more than can be tried.

    A table of positions is read up to the length of the input. What is short is meant to be just that. The number of
    samples stays what it is, wherever it stands; with ``samples`` it alone does not, and becomes just that. Where all
    axes together make too much of it, one is as long after the other. Where nothing is open, the shapes are the same.
    """
    free = _open_axes(base, samples=samples)

    def scene(some: Container[str | int]) -> Scene:
        inputs = {
            name: tuple(
                (length if samples or 0 < length <= SHORT else max(size, length))
                if free.get((name, axis)) in some
                else size
                for axis, size in enumerate(shape)
            )
            for name, shape in base.inputs.items()
        }
        return Scene(graph, inputs, base.ports, is_small=base.is_small, deadline=base.deadline)

    every = frozenset(free.values())
    if (whole := scene(every)).inputs == base.inputs:
        return [base]
    alone = [whole] if _is_bearable(whole) else [scene({name}) for name in sorted(every, key=str)]
    return alone if length <= _LONGEST and all(map(_is_bearable, alone)) else []


def longer(graph: Graph, base: Scene, more: int) -> Scene:
    """The same shapes, but longer by so much wherever the model leaves it open; the number of samples stays."""
    free = _open_axes(base, samples=False)
    inputs = {
        name: tuple(size + more * ((name, axis) in free) for axis, size in enumerate(shape))
        for name, shape in base.inputs.items()
    }
    return Scene(graph, inputs, base.ports, is_small=base.is_small, deadline=base.deadline)


def _open_axes(base: Scene, *, samples: bool) -> dict[tuple[str, int], str | int]:
    counts = {port.shape[0] for port in base.ports if port.shape}
    return _open(base.ports, base.inputs, counts, samples=samples)


def _open(
    ports: Iterable[Port], inputs: Container[str], counts: Container[object], *, samples: bool
) -> dict[tuple[str, int], str | int]:
    """The axes of any size. Those that are as long as each other have a name in common, or at least their place.

    Samples are along those that are named in ``counts``, or have no name and come first.
    """
    return {
        (port.name, axis): axis if dim is None else dim
        for port in ports
        if port.name in inputs
        for axis, dim in enumerate(port.shape or ())
        if not isinstance(dim, int) and (axis == 0 if dim is None else dim in counts) == samples
    }


def _varied(ports: Sequence[Port], tried: Sequence[Mapping[str, Shape]]) -> Iterator[dict[str, Shape]]:
    """Odd sizes where the model leaves open what was tried at one only: each another one, or all the same."""
    firsts = [port.shape[0] for port in ports if port.shape]
    every = [((), 2)] if len(tried) == 1 else []  # the number of samples, too
    for counts, apart in (*every, (firsts[:1], 2), (firsts, 2), (firsts, 0)):
        free = _open(ports, tried[0], counts, samples=False)
        alike = {
            (name, axis): key
            for (name, axis), key in free.items()
            if axis == 0 or len({shapes[name][axis] for shapes in tried}) == 1
        }
        keys = list(dict.fromkeys(alike.values()))
        shapes = {
            name: tuple(
                odd_size(size) + apart * keys.index(alike[name, axis]) if (name, axis) in alike else size
                for axis, size in enumerate(shape)
            )
            for name, shape in tried[0].items()
        }
        if shapes not in tried:
            yield shapes


def _is_bearable(scene: Scene) -> bool:
    return sum(map(math.prod, scene.inputs.values())) <= _MOST_STRETCHED


def _smaller(model: Model, declared: Mapping[str, Shape], *, few: bool) -> Iterator[dict[str, Shape]]:
    """Smaller sizes, for some samples, or for as few as are declared."""
    floats = _float_inputs(model)
    images = {shape[2:] for name, shape in declared.items() if name in floats and len(shape) >= 3}
    if len(images) != 1:
        return
    spatial = next(iter(images))
    for number, sizes in enumerate(_SMALL_SIZES):
        rows = _ROWS[min(number, len(_ROWS) - 1)]
        small = (sizes * len(spatial))[: len(spatial)]
        if all(size < before for size, before in zip(small, spatial, strict=True)):
            yield _resized(declared, floats, rows if _counts_samples(declared) and not few else 0, small)


def _with_rows(model: Model, declared: Mapping[str, Shape]) -> list[dict[str, Shape]]:
    """The declared sizes for some samples, where those can be told."""
    entries = sum(map(math.prod, declared.values()))
    few = _ROWS[:2] if entries < _MODERATE else _ROWS[:1] if entries < _MANY else (_FEW_ROWS,)
    return [_resized(declared, _float_inputs(model), rows, None) for rows in few if _counts_samples(declared)]


def _float_inputs(model: Model) -> set[str]:
    return {port.name for port in required_inputs(model) if _is_float(port.elem_type)}


def _counts_samples(declared: Mapping[str, Shape]) -> bool:
    """Whether the first axis of all inputs seems to be the same, that of the samples."""
    return len({shape[0] for shape in declared.values() if shape}) == 1


def _resized(
    declared: Mapping[str, Shape], floats: set[str], rows: int, spatial: Sequence[int] | None
) -> dict[str, Shape]:
    return {
        name: (
            *((rows,) if rows and shape else shape[:1]),
            *(shape[1:] if spatial is None or name not in floats or len(shape) < 3 else (shape[1], *spatial)),
        )
        for name, shape in declared.items()
    }


def _with_inputs(model: Model, shapes: Mapping[str, Shape]) -> Model:
    """The model with other shapes of its inputs, and no claims about those of its outputs and inner values."""
    changed = model.copy()
    graph = changed.proto.graph
    del graph.value_info[:]
    for entry in graph.output:
        if entry.type.HasField("tensor_type"):
            entry.type.tensor_type.ClearField("shape")
    for entry in graph.input:
        if entry.name in shapes:
            entry.type.tensor_type.shape.Clear()
            for size in shapes[entry.name]:
                entry.type.tensor_type.shape.dim.add().dim_value = size
    return changed


def _is_float(elem_type: int) -> bool:
    name = type_name(elem_type)
    return "FLOAT" in name or name == "DOUBLE"
