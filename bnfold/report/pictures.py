"""Drawings of the graph around a fold: the operators that it is about, and those right beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from bnfold.graph import Op, Value
from bnfold.report.layout import HEIGHT, WIDTH, Layout, layout

MOST_DRAWN = 14
"""Operators of a fold in one drawing; a walk through a hundred is told in words."""
_MOST_BESIDE = 3
"""Neighbours of one operator on one side."""
_NAME = 24  # characters of a name in a box
_TYPE = 20  # likewise, in bold
_LAST = 1 << 60


class Part(Enum):
    """What an operator has to do with a fold; the name is its style, the text is written into the box."""

    GONE = "goes"
    HALF = "half of it goes"
    STAYS = "stays"
    TOOK = "takes it in"
    CHANGED = "has taken it in"
    PASSED = "lets it pass"
    LEFT = "is left"
    STOPS = "stops it"
    BESIDE = ""
    END = "of the graph"


@dataclass(frozen=True)
class Box:
    """An operator, or an input or output of the graph.

    Attributes:
        type: What it is.
        name: Its name.
        part: What it has to do with the fold.
    """

    type: str
    name: str
    part: Part

    @property
    def short(self) -> str:
        """The end of the name, which tells most."""
        return _end_of(self.name, _NAME)

    @property
    def short_type(self) -> str:
        return _end_of(self.type, _TYPE)


@dataclass(frozen=True)
class Picture:
    """Boxes with lines between them.

    Attributes:
        boxes: What is drawn.
        layout: Where.
    """

    boxes: tuple[Box, ...]
    layout: Layout

    @property
    def placed(self) -> list[tuple[Box, float, float]]:
        """Each box and its left upper corner."""
        return [(box, *place) for box, place in zip(self.boxes, self.layout.places, strict=True)]

    @property
    def paths(self) -> list[str]:
        """Each line as the data of an SVG path: curves that leave and arrive upright."""
        return [_path(line) for line in self.layout.lines]

    @property
    def told(self) -> str:
        """The same for who does not see it."""
        return ", ".join(f"{box.type} {box.name} {box.part.value}".rstrip() for box in self.boxes)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        return max(self.layout.width, WIDTH), max(self.layout.height, HEIGHT)


@dataclass(frozen=True)
class _End:
    """Where a value comes into the graph, or leaves it."""

    value: Value
    is_output: bool

    @property
    def place(self) -> tuple[int, ...]:
        return (_LAST,) if self.is_output else (-1,)

    @property
    def box(self) -> Box:
        return Box("output" if self.is_output else "input", self.value.name, Part.END)


_Drawn = Op | _End


def picture(parts: Mapping[Op, Part]) -> Picture:
    """Draws some operators and what is right beside them.

    Args:
        parts: What each has to do with what the drawing is of.
    """
    drawn: dict[_Drawn, None] = dict.fromkeys(parts)
    for op in parts:
        drawn |= dict.fromkeys([*_few(_above(op), parts), *_few(_below(op), parts)])
    number = {end: index for index, end in enumerate(sorted(drawn, key=lambda end: end.place))}
    # in an invalid model a value may be read before it is made
    lines = [(number[upper], number[lower]) for upper, lower in _edges(number) if number[upper] < number[lower]]
    return Picture(tuple(_box(end, parts) for end in number), layout(len(number), lines))


def _edges(drawn: Collection[_Drawn]) -> Iterator[tuple[_Drawn, _Drawn]]:
    """All between what is drawn."""
    for end in drawn:
        if isinstance(end, Op):
            yield from ((above, end) for above in dict.fromkeys(_above(end)) if above in drawn)
        elif end.is_output and (maker := end.value.producer) is not None and maker in drawn:
            yield maker, end


def makers(op: Op) -> Iterator[Op]:
    """What makes the values that an operator reads."""
    yield from (value.producer for value in op.inputs if value is not None and value.producer is not None)


def readers(op: Op) -> Iterator[Op]:
    """What reads the values that an operator makes."""
    yield from (use.op for value in op.outputs if value is not None for use in value.readers)


def _box(end: _Drawn, parts: Mapping[Op, Part]) -> Box:
    return end.box if isinstance(end, _End) else Box(end.type, end.label, parts.get(end, Part.BESIDE))


def _few(ends: Iterable[_Drawn], parts: Mapping[Op, Part]) -> Iterator[_Drawn]:
    """All that the drawing is of, and some others."""
    beside = 0
    for end in dict.fromkeys(ends):
        if not isinstance(end, Op) or end not in parts:
            beside += 1
            if beside > _MOST_BESIDE:
                continue
        yield end


def _above(op: Op) -> Iterator[_Drawn]:
    """What makes the data that an operator reads."""
    for value in op.inputs:
        if value is None or value.tensor is not None or op.graph.constant(value) is not None:
            continue
        if value.producer is not None:
            yield value.producer
        elif value.is_input:
            yield _End(value, is_output=False)


def _below(op: Op) -> Iterator[_Drawn]:
    """What reads what an operator makes."""
    for value in op.outputs:
        if value is not None:
            yield from (use.op for use in value.readers)
            if value.is_output:
                yield _End(value, is_output=True)


def _end_of(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _path(line: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = line
    parts = [f"M{x:.0f} {y:.0f}"]
    for to_x, to_y in rest:
        half = (y + to_y) / 2
        straight = abs(to_x - x) < 1
        parts.append(f"V{to_y:.0f}" if straight else f"C{x:.0f} {half:.0f} {to_x:.0f} {half:.0f} {to_x:.0f} {to_y:.0f}")
        x, y = to_x, to_y
    return "".join(parts)
