"""Which node runs when: a graph cut between the depths of its BatchNormalizations.

The depth of a BatchNormalization is the number of others on the longest path to it. All of one depth are measured in
the same segment, and run in a later one, when their statistics are known. Every other node runs as late as it can:
in the segment of its first reader. What is made in one segment and read in a later one crosses the cut between them,
but for values that cannot be kept: they are made again, from what crosses in their place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cache

from bnfold.calibration.measuring.targets import Target
from bnfold.graph import Graph, Op, Value

START = -1
"""The cut before the first segment, where nothing is there but the inputs of the graph."""


class Segments:
    """The schedule of a graph's nodes.

    Args:
        graph: of the model.
        targets: that are measured.
        fleeting: values that cannot be kept.

    Attributes:
        count: of segments; the cut after segment k has number k.
        measured_in: for each target, by number, the segment that makes its input.
    """

    def __init__(self, graph: Graph, targets: Sequence[Target], fleeting: Collection[Value] = ()) -> None:
        ops = list(graph.main.live_ops())
        numbers = {target.op: number for number, target in enumerate(targets)}
        self._reads = {op: list(dict.fromkeys(op.reads())) for op in ops}
        self._depends: dict[Op, bool] = {}
        self.measured_in = self._depths(numbers)
        self.count = max(self.measured_in) + 1
        self._runs_in = self._latest(targets)
        self._last_read = dict.fromkeys((value for values in self._reads.values() for value in values), START)
        for op in ops:
            if self._runs_in[op] < self.count:
                self._read_until(op, self._runs_in[op])
        for op in reversed(ops):
            if any(value in fleeting for value in op.outputs):
                self._depends[op] = False  # so that it runs again
                self._read_until(op, max(self._last_read.get(value, START) for value in op.outputs if value))

    def _read_until(self, op: Op, segment: int) -> None:
        for value in self._reads[op]:
            self._last_read[value] = max(self._last_read[value], segment)

    def measured(self, segment: int) -> list[int]:
        """The numbers of the targets that are measured in a segment."""
        return [number for number, depth in enumerate(self.measured_in) if depth == segment]

    @cache  # noqa: B019 -- it lives as long as its run
    def crossing(self, cut: int) -> list[Value]:
        """The values made up to a cut that are read behind it."""
        made = [op for op, segment in self._runs_in.items() if segment <= cut and self._depends[op]]
        values = (value for op in made for value in op.outputs if value is not None)
        return [value for value in values if self._last_read.get(value, START) > cut]

    def between(self, start: int, wanted: Iterable[Value]) -> list[Op]:
        """The nodes that make some values out of what crosses the cut `start`, in graph order."""
        needed: set[Op] = set()
        waiting = [value.producer for value in wanted]
        while waiting:
            op = waiting.pop()
            if op is None or op in needed or (self._runs_in[op] <= start and self._depends[op]):
                continue
            needed.add(op)
            waiting += [value.producer for value in self._reads[op]]
        return [op for op in self._runs_in if op in needed]

    def alone(self) -> list[list[Op]]:
        """The nodes of each segment when nothing is computed twice."""
        ops: list[list[Op]] = [[] for _ in range(self.count + 1)]
        for op, segment in self._runs_in.items():
            ops[segment].append(op)
        return ops[: self.count]

    def _depths(self, numbers: dict[Op, int]) -> list[int]:
        depth: dict[Op, int] = {}
        measured_in = [0] * len(numbers)
        for op, values in self._reads.items():
            producers = [value.producer for value in values if value.producer is not None]
            depth[op] = max((depth[producer] for producer in producers), default=0)
            # what depends on no input of the graph is cheaper to run again than to keep
            self._depends[op] = any(self._depends[producer] for producer in producers) or any(map(is_fed, values))
            if op in numbers:
                measured_in[numbers[op]] = depth[op]
                depth[op] += 1
        return measured_in

    def _latest(self, targets: Sequence[Target]) -> dict[Op, int]:
        """The segment of each node's first reader; `count` for a node that no measurement needs."""
        latest = dict.fromkeys(self._reads, self.count)
        for number, target in enumerate(targets):
            if (producer := target.x.producer) is not None:
                latest[producer] = min(latest[producer], self.measured_in[number])
        for op in reversed(self._reads):
            for value in self._reads[op]:
                if value.producer is not None:
                    latest[value.producer] = min(latest[value.producer], latest[op])
        return latest


def is_fed(value: Value) -> bool:
    """Whether the caller gives it: an input of the graph that is no initializer."""
    return value.is_input and not value.is_stored
