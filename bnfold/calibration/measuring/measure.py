"""A model prepared for measuring: its index, its targets, what is known of their inputs, and where programs run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from bnfold.affine import FloatArray
from bnfold.calibration.error import CalibrationError
from bnfold.calibration.measuring.batches import Samples, inputs_of
from bnfold.calibration.measuring.build import Builder, Form
from bnfold.calibration.measuring.segments import START, Segments, is_fed
from bnfold.calibration.measuring.targets import Survey, Target
from bnfold.calibration.running.engine import Engine
from bnfold.calibration.running.program import Described, Measured, Program, Reading
from bnfold.calibration.running.weights import with_shared_weights
from bnfold.calibration.statistics.methods import Estimator
from bnfold.calibration.statistics.moments import Moments, Statistics
from bnfold.graph import Graph, Op, Value
from bnfold.model_io import Model

LARGE_MEAN = 100.0
"""Where |mean| / std exceeds this, float32 sums lose what float64 keeps."""

Report = Callable[[str, int, int], None]
"""Called as work goes on: what is done, samples done, samples in all."""

CPU = "CPUExecutionProvider"
_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Running:
    """How programs are run.

    Attributes:
        provider: the execution provider; the CPU takes what it cannot.
        arithmetic: measure in arithmetic, without a training-mode BatchNormalization; always so off the CPU.
        report: told of progress.
    """

    provider: str = CPU
    arithmetic: bool = False
    report: Report | None = None

    @property
    def providers(self) -> tuple[str, ...]:
        return (self.provider,) if self.provider == CPU else (self.provider, CPU)


class Subject:
    """A model under measurement.

    Args:
        model: the model; it is not changed.
        samples: the data.
        engine: where programs run.
        running: how.
        survey: what to measure.

    Raises:
        CalibrationError: ONNX Runtime cannot run the model on this data.
    """

    def __init__(
        self,
        model: Model,
        graph: Graph,
        samples: Samples,
        engine: Engine,
        running: Running,
        survey: Survey,
    ) -> None:
        self.graph = graph
        self.samples = samples
        self.engine = engine
        self.survey = survey
        self.targets = self.survey.targets
        self._numbered = {target.op: number for number, target in enumerate(self.targets)}
        self.segments = Segments(graph, self.targets)
        self._folder = Path(mkdtemp(dir=engine.folder))  # of its own: an engine may run several models
        self._model = with_shared_weights(model, self._folder)
        self._running = running
        self._arithmetic = running.arithmetic or running.provider != CPU
        self._numbers = count()
        self._prefix = "bnfold"
        while any(name.startswith(self._prefix) for name in (*graph.names, *graph.main.values)):
            self._prefix += "_"
        self.values = self._describe()
        self.segments = Segments(graph, self.targets, self._fleeting())
        self.forms = [self._form(target) for target in self.targets]
        self._find_large_means()

    # --- runs --------------------------------------------------------------------------------------------

    def in_training_mode(self, estimators: Sequence[Estimator]) -> list[Statistics]:
        """One pass in which every target normalises by the batch, whose statistics go to the estimators, in order.

        Returns:
            What all batches together say, for the standard errors.
        """
        moments = [Moments(target.channels) for target in self.targets]
        program = self._training_program()
        for outcome in self.engine.run(program, self.samples.batches, self._advance("measuring")):
            for part in outcome.measured:
                self._refuse_nonfinite(part, outcome.batch)
                if part.count:
                    mean, var = part.mean.astype(np.float64), part.var.astype(np.float64)
                    moments[part.target].add(part.count, mean, var)
                    with self._naming(part.target):
                        estimators[part.target].add(part.count, mean[0], var[0])
        return [each.statistics() for each in moments]

    def in_inference_mode(self, mean: Sequence[FloatArray], var: Sequence[FloatArray], what: str) -> list[Statistics]:
        """One pass with these statistics in the targets; what each of them then meets."""
        builder = self.builder()
        wanted = [target.x for target in self.targets]
        ops = self.segments.between(START, wanted)
        self.emit(builder, ops, dict(enumerate(zip(mean, var, strict=True))))
        readings = [builder.measure(n, t, self.forms[n]) for n, t in enumerate(self.targets)]
        program = self.program(builder, ops, wanted, readings)
        return self.measure(program, range(len(self.targets)), what)

    def measure(self, program: Program, numbers: Iterable[int], what: str) -> list[Statistics]:
        """Runs a program over all batches and merges what it measures of some targets, in the order of the batches."""
        moments = {number: Moments(self.targets[number].channels) for number in numbers}
        for outcome in self.engine.run(program, self.samples.batches, self._advance(what)):
            for part in outcome.measured:
                self._refuse_nonfinite(part, outcome.batch)
                moments[part.target].add(part.count, part.mean, part.var, samples=outcome.rows)
        return [each.statistics() for each in moments.values()]

    # --- programs ----------------------------------------------------------------------------------------

    def builder(self) -> Builder:
        return Builder(
            self._model, self.graph, self._prefix, arithmetic=self._arithmetic, literal=self.survey.has_steps
        )

    def emit(self, builder: Builder, ops: Iterable[Op], frozen: dict[int, tuple[FloatArray, FloatArray]]) -> None:
        """Adds nodes; targets in inference mode with the given statistics."""
        for op in ops:
            if (number := self._numbered.get(op)) is None:
                builder.copy(op)
            else:
                builder.frozen(self.targets[number], *frozen[number], self.forms[number])

    def program(
        self,
        builder: Builder,
        ops: Sequence[Op],
        wanted: Iterable[Value],
        readings: Sequence[Reading] = (),
        keeps: Sequence[Value] = (),
        frees: Sequence[Value] = (),
        describes: Sequence[str] = (),
    ) -> Program:
        """Writes what the builder holds.

        Args:
            builder: with all its nodes.
            ops: the nodes of the model among them.
            wanted: values that are measured; some may be inputs, or cached.
            readings: of those.
            keeps: values for the cache.
            frees: cached values that are not needed after this.
            describes: names of values of which type and shape are wanted.
        """
        made = {value for op in ops for value in op.outputs}
        read = dict.fromkeys(value for op in ops for value in op.reads())
        outside = [v for v in dict.fromkeys([*read, *wanted]) if not (v in made or v.is_stored)]
        inputs = [v for v in outside if is_fed(v)]
        cached = [v for v in outside if not is_fed(v)]
        self.engine.deadline.heed()
        path = self._folder / f"program-{next(self._numbers)}.onnx"
        entries = [entry for entry in self.graph.main.proto.input if entry.name in {v.name for v in inputs}]
        keep = tuple(value.name for value in keeps)
        builder.write(path, [*entries, *map(self._value_info, cached)], [*keep, *describes])
        return Program(
            str(path),
            feeds=tuple(value.name for value in inputs),
            reads=tuple(value.name for value in cached),
            keeps=keep,
            frees=tuple(value.name for value in frees),
            readings=tuple(readings),
            describes=tuple(describes),
            trains=not self._arithmetic,
            providers=self._running.providers,
        )

    def _training_program(self) -> Program:
        builder = self.builder()
        ops = self.segments.between(START, [target.op.output for target in self.targets])
        readings = []
        for op in ops:
            if (number := self._numbered.get(op)) is None:
                builder.copy(op)
            else:
                readings.append(builder.training(number, self.targets[number], self.forms[number]))
        return self.program(builder, ops, (), readings)

    # --- what is known before anything is measured -------------------------------------------------------

    def _describe(self) -> dict[str, Described]:
        """Types and shapes of all values on the way to a target, from a run of one batch of a few rows."""
        builder = self.builder()
        ops = self.segments.between(START, [target.x for target in self.targets])
        for op in ops:
            builder.identity(op) if op in self._numbered else builder.copy(op)
        made = [value for op in ops for value in self._made_by(op)]
        inputs = [target.x for target in self.targets if target.x.producer is None]
        names = {builder.node("Identity", [value.name]): value.name for value in dict.fromkeys(inputs)}
        program = self.program(builder, ops, inputs, describes=[*(value.name for value in made), *names])
        program = replace(program, providers=(CPU,))  # others stumble over graphs whose outputs are all values
        (outcome,) = self.engine.run(program, [self.samples.few])
        return {names.get(entry.name, entry.name): entry for entry in outcome.described}

    def _fleeting(self) -> set[Value]:
        """What cannot be kept for a later segment: sequences, texts, and numbers that numpy has no type for."""
        ops = self.segments.between(START, [target.x for target in self.targets])
        made = {value for op in ops for value in self._made_by(op)}
        return {v for v in made if v.name not in self.values or not self.values[v.name].can_wait}

    def _made_by(self, op: Op) -> list[Value]:
        """The outputs of a node, but for the statistics of a target."""
        return [value for value in op.outputs[: 1 if op in self._numbered else None] if value is not None]

    def _form(self, target: Target) -> Form:
        described = self.values.get(target.x.name)
        if described is None:
            raise CalibrationError(f"{target.name}: its input is no tensor")
        if len(described.shape) < 2 or described.shape[1] != target.channels:
            raise CalibrationError(
                f"{target.name}: has statistics of {target.channels} channels, its input is {list(described.shape)}"
            )
        kind = _element_type(described)
        # a sum over rows alone is one long chain of additions in ONNX Runtime's kernel: 2e-5 at 100 000 rows
        in_double = kind in _NARROW or len(described.shape) == 2
        return Form(kind, len(described.shape), in_double, self._has_samples(target.x))

    def _has_samples(self, value: Value) -> bool:
        """Whether its first axis is fixed, or that of the inputs; if not, it may depend on data, and be empty."""
        firsts = {entry.first for entry in inputs_of(self.graph)}
        size = (self.graph.shape(value) or (None,))[0]
        return size > 0 if isinstance(size, int) else size is not None and firsts == {size}

    def _find_large_means(self) -> None:
        """Measures on a few samples where float32 would not do."""
        (outcome,) = self.engine.run(self._training_program(), [self.samples.few])
        for part in outcome.measured:
            mean, std = np.abs(part.mean[0]), np.sqrt(part.var[0])
            if (mean > LARGE_MEAN * std).any():  # also where these few do not vary: others may
                self.forms[part.target] = replace(self.forms[part.target], in_double=True)

    def with_estimate(self, number: int, found: Statistics, estimator: Estimator) -> Statistics:
        """Statistics with the mean and variance of an estimator; as they are where there was nothing to measure."""
        if not found.count:
            return found
        with self._naming(number):
            mean, var = estimator.mean_and_var(found)
        return replace(found, mean=mean, var=var)

    @contextmanager
    def _naming(self, number: int) -> Iterator[None]:
        """Names a target in errors."""
        try:
            yield
        except CalibrationError as error:
            raise CalibrationError(f"{self.targets[number].name}: {error}") from error

    # --- small matters -----------------------------------------------------------------------------------

    def _refuse_nonfinite(self, part: Measured, batch: int) -> None:
        if part.count and not (np.isfinite(part.mean).all() and np.isfinite(part.var).all()):
            bad = ~(np.isfinite(part.mean) & np.isfinite(part.var)).all(axis=1)
            first = sum(earlier.rows for earlier in self.samples.batches[:batch])
            rows = self.samples.batches[batch].rows
            row = int(np.argmax(bad)) * rows // len(bad)  # the batch's first row if it was measured as a whole
            name = self.targets[part.target].name
            where, whose = self.samples.where(first + row), self.survey.whose  # the data itself has been checked
            raise CalibrationError(f"{name}: meets NaN or infinity, which {whose} makes of {where}")

    def _value_info(self, value: Value) -> ValueInfoProto:
        """A cached value as an input of a graph: type and rank."""
        described = self.values[value.name]
        return helper.make_tensor_value_info(value.name, _element_type(described), [None] * len(described.shape))

    def _advance(self, what: str) -> Callable[[int], None]:
        done = 0

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            if self._running.report is not None:
                self._running.report(what, done, self.samples.count)

        return advance


def _element_type(described: Described) -> int:
    """The number of the type in `onnx.TensorProto`, whose names are those of ONNX Runtime in capitals."""
    return int(TensorProto.DataType.Value(described.kind.upper()))
