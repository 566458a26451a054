"""Evaluating some operators of a graph in float64: floating-point types stand for the real numbers."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import onnx

from bnfold.graph import Graph, Op, Scope, Value, cast_type, is_float
from bnfold.graph.evaluate import NotEvaluated, cast, saturates
from bnfold.limits import NEVER, Deadline
from bnfold.model_io import Model
from bnfold.verification.float64.carried import Call, Num, Rounding, distance, rounding_to
from bnfold.verification.float64.control import REPEATING, Repeat, body, trips
from bnfold.verification.float64.how import AS_IT_IS, NOTHING, Coverage, How, Result
from bnfold.verification.float64.kept import Kept, Made
from bnfold.verification.float64.kernel import Array, NotComputed, as_real
from bnfold.verification.float64.kernels import KERNELS, RANDOM, unrounded
from bnfold.verification.float64.rules import RULES, carried
from bnfold.verification.float64.store import Store
from bnfold.verification.float64.windows import sees_all

Known = dict[Value, Num]
# of which onnx.reference makes something else in a form that we do not compute
_OURS_ALONE = RANDOM | {"Dropout", "BatchNormalization", "ConvTranspose"}
_WITH_AXIS = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Equal", "Greater", "Less", "And", "Or", "Xor", "PRelu"})
ORDERING = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_MOST_ITERATIONS = 1 << 11  # of all Loops and Scans together, those in others counted each time


class CannotEvaluate(Exception):
    """An operator could not be evaluated. Its text names it and says why."""


class OutOfTime(CannotEvaluate):
    """The deadline is over."""

    def __init__(self, text: str = "there was no time left for it") -> None:
        super().__init__(text)


class Evaluator:
    """Evaluates operators of one model. Weights are kept until `forget`.

    Args:
        model: The model.
        deadline: When it has to have ended.
        kept: Where to keep what operators make of values that are given, for others who give the same arrays.
    """

    def __init__(self, model: Model, deadline: Deadline = NEVER, kept: Kept | None = None) -> None:
        self._store = Store(model)
        self._deadline = deadline
        self._kept = kept
        self.constant, self.forget = self._store.constant, self._store.forget

    def evaluate(self, ops: Iterable[Op], known: Mapping[Value, Array], target: Value, how: How = AS_IT_IS) -> Result:
        """The target, from values that are known and the operators, in graph order, that make it from them.

        Raises:
            CannotEvaluate: An operator is unknown, or does not fit its inputs.
        """
        run = _Run(self._store, self._deadline, known, how, self._kept)
        for _ in run.steps(ops):
            pass
        num = run.num(target)
        if not isinstance(num.value, np.ndarray):
            raise CannotEvaluate(f"{target.name!r} is no tensor")
        return Result(num, run.coverage)

    def run(self, ops: Iterable[Op], known: Mapping[Value, Array], target: Value, how: How = AS_IT_IS) -> Array:
        """The value alone; see `evaluate`."""
        return np.asarray(self.evaluate(ops, known, target, how).num.value)

    def outputs(self, graph: Graph, feed: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors among the outputs of the whole model, without functions.

        Args:
            graph: Its index.
            feed: Its inputs by name, in float64 where they are floating-point.

        Raises:
            CannotEvaluate: An operator is unknown, or does not fit its inputs.
        """
        wanted = {entry.name: graph.main.lookup(entry.name) for entry in graph.model.proto.graph.output}
        run = _Run(self._store, self._deadline, {graph.main.own(name): array for name, array in feed.items()})
        for _ in run.steps(graph.main.live_ops(), keep=frozenset(wanted.values())):
            pass
        found = {name: run.num(value).value for name, value in wanted.items()}
        return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}

    def trace(self, ops: Iterable[Op], known: Mapping[Value, Array], how: How = AS_IT_IS) -> dict[Value, Any]:
        """All values on the way.

        Raises:
            CannotEvaluate: An operator is unknown, or does not fit its inputs.
        """
        run = _Run(self._store, self._deadline, known, how)
        for _ in run.steps(ops):
            pass
        return {value: num.value for value, num in run.values.items()}

    def shapes(self, graph: Graph, feed: Mapping[str, Array]) -> dict[Value, tuple[int, ...]]:
        """The shapes of all values outside bodies, as far as the model can be evaluated; see `outputs`."""
        run = _Run(self._store, self._deadline, {graph.main.own(name): array for name, array in feed.items()})
        found: dict[Value, tuple[int, ...]] = {}
        with suppress(CannotEvaluate):
            for op in run.steps(graph.main.live_ops(), keep=frozenset()):
                made = ((value, run.values[value].value) for value in op.outputs if value and value in run.values)
                found |= {value: array.shape for value, array in made if isinstance(array, np.ndarray)}
        return found


class _Run:
    """One evaluation, with what it meets.

    Attributes:
        values: What is known by now.
    """

    def __init__(
        self,
        store: Store,
        deadline: Deadline,
        known: Mapping[Value, Array],
        how: How = AS_IT_IS,
        kept: Kept | None = None,
    ) -> None:
        self.values: Known = {value: Num(array) for value, array in known.items()}
        self.coverage = NOTHING
        self._store, self._deadline, self._kept = store, deadline, kept
        self._how = how
        self._fixed = {value for value in known if is_stored(value)}
        self._iterations = 0
        self._nest = 1  # iterations of the Loops and Scans around an operator, multiplied
        self._origins: dict[Value, Hashable] = {}  # what tells values from others that were evaluated for `kept`
        if kept is not None:
            self._origins.update((value, (kept.serial(array), is_stored(value))) for value, array in known.items())

    def num(self, value: Value | None) -> Num:
        """A value that is known by now."""
        return self._num(value, self.values)

    def steps(self, ops: Iterable[Op], keep: Collection[Value] | None = None) -> Iterator[Op]:
        """Runs the operators in turn; with ``keep``, what is neither in that nor needed any more goes."""
        ops = list(ops)
        done = {} if keep is None else _last_reads(ops, keep)
        with np.errstate(all="ignore"):
            for number, op in enumerate(ops):
                self._step(op, self.values)
                yield op
                for value in done.get(number, ()):
                    self.values.pop(value, None)
                self._store.forget(done.get(number, ()))

    def _step(self, op: Op, values: Known) -> None:
        """Runs an operator, unless what it makes of these values is known. What a body makes counts as data."""
        if all(value is None or value in values for value in op.outputs):
            return  # a constant that the caller has given
        reads = op.inputs[:1] if op.type == "CastLike" else op.inputs  # the other one says its type and no more
        is_fixed = not op.bodies and all(map(self._is_fixed, reads))
        make = partial(self._made, op, values, is_fixed=is_fixed)
        key = self._key(op) if values is self.values else None  # in a body, values change
        if key is None or self._kept is None:
            made = make()
        else:
            made = self._kept.made(key, make)
            self._origins.update((value, (made.serial, place)) for place, value in enumerate(op.outputs) if value)
        self.coverage |= made.coverage
        values.update((value, num) for value, num in zip(op.outputs, made.nums, strict=False) if value is not None)
        if is_fixed:
            self._fixed.update(value for value in op.outputs if value is not None)

    def _key(self, op: Op) -> Hashable:
        """All that the results of an operator depend on; None if that cannot be told."""
        origins = [self._origins.get(value) or self._stored_origin(value) if value else () for value in op.inputs]
        return None if op.bodies or None in origins else (op, self._how.of(op), *origins)

    def _stored_origin(self, value: Value) -> Hashable:
        return (value, self._how.rounded.get(value)) if is_stored(value) else None

    def _made(self, op: Op, values: Known, *, is_fixed: bool) -> Made:
        met, self.coverage = self.coverage, NOTHING
        nums = self._run(op, values)
        made = Made(self._rounded(op, nums) if is_fixed else nums, self.coverage)
        self.coverage = met
        return made

    def _is_fixed(self, value: Value | None) -> bool:
        """Whether it depends on no data."""
        return value is None or value in self._fixed or is_stored(value)

    def _rounded(self, op: Op, nums: Sequence[Num]) -> Sequence[Num]:
        """Rounds a constant that is cast to a narrower type; data is not rounded, as it stands for real numbers."""
        value, narrow, num = op.outputs[0], cast_type(op), nums[0]
        if value is not None and narrow and isinstance(num.value, np.ndarray) and num.value.dtype == np.float64:
            try:
                rounded = cast(num.value, narrow, saturates=saturates(op))
            except NotEvaluated as error:
                raise CannotEvaluate(
                    f"{op.type} {op.label!r}: runtimes differ in what it makes of {narrow.name}"
                ) from error
            nums = [num._replace(value=rounded.astype(np.float64)), *nums[1:]]
        if self._how.folds and _is_cast_of_stored(value):
            return nums  # whoever folds constants gets it exactly
        return [self._off(op, output, num) for output, num in zip(op.outputs, nums, strict=False)]

    def _off(self, op: Op, output: Value | None, num: Num) -> Num:
        """A computed constant, off by the roundings that it is granted."""
        dtype = None if output is None or not self._how.folds or op.type == "Constant" else op.graph.dtype(output)
        if dtype is not None and is_float(dtype):
            num = _off(num, rounding_to(dtype))
        return num if output is None or output not in self._how.rounded else _off(num, self._how.rounded[output])

    def _num(self, value: Value | None, values: Known) -> Num:
        if value is None:
            return Num(None)
        if value not in values:
            if not is_stored(value):
                raise CannotEvaluate(f"{value.name!r} is not known")
            values[value] = self._store.rounded(value, self._how.rounded.get(value))
        return values[value]

    def _run(self, op: Op, values: Known) -> Sequence[Num]:
        if self._deadline.is_over:
            raise OutOfTime
        try:
            return self._results(op, values)
        except CannotEvaluate:
            raise
        except NotComputed as error:
            raise CannotEvaluate(f"{op.type} {op.label!r}: {error}") from error
        except MemoryError as error:
            raise CannotEvaluate(f"{op.type} {op.label!r}: it takes more memory than there is") from error
        except Exception as error:  # whatever a foreign kernel does with arrays that do not fit
            text = " ".join(str(error).split())[:200]
            raise CannotEvaluate(f"{op.type} {op.label!r}: {type(error).__name__}: {text}") from error

    def _results(self, op: Op, values: Known) -> Sequence[Num]:
        if op.type == "Constant":
            return [Num(self._constant_node(op))]
        if op.type == "If":
            return self._if(op, values)
        inputs = _aligned(op, [self._num(value, values) for value in op.inputs])
        if repeat := REPEATING.get(op.type):
            return self._repeated(op, inputs, repeat, values)
        arrays = [num.value for num in inputs]
        outputs, is_referred = self._computed(op, arrays)
        referred = {op} if is_referred and not all(map(self._is_fixed, op.inputs)) else ()
        tied = {op} if op.type in ORDERING and _are_tied(*inputs) else ()
        self.coverage |= Coverage(
            frozenset(), frozenset(referred), tied=frozenset(tied), blind=not sees_all(op, arrays)
        )
        return self._carried(op, inputs, outputs)

    def _carried(self, op: Op, inputs: Sequence[Num], outputs: Sequence[Any]) -> Sequence[Num]:
        """The results with their errors."""
        unit = 0.0 if all(map(self._is_fixed, op.inputs)) and not op.bodies else self._how.unit
        call = Call(op, inputs, outputs, lambda arrays: self._computed(op, arrays)[0], unit)
        if op.type not in RULES and any(num.error is not None for num in inputs):
            self.coverage |= Coverage(estimated=frozenset({op.type}))
        results = carried(call)
        if op not in self._how.retuned:
            return results
        for moved in _retunings(op):
            others = self._computed(moved, [num.value for num in inputs])[0]
            results = [_further(num, other) for num, other in zip(results, others, strict=True)]
        return results

    def _computed(self, op: Op, inputs: Sequence[Any]) -> tuple[Sequence[Any], bool]:
        """What it makes of arrays, and whether it was onnx.reference that did."""
        if kernel := unrounded if self._is_passed_on(op) else KERNELS.get(op.type):
            try:
                return list(map(np.asarray, kernel(op, inputs))), False  # numpy makes numbers of arrays without axes
            except NotComputed:
                if op.type in _OURS_ALONE or op.node.domain:
                    raise
        outputs = self._store.reference(op, inputs)
        return [_as_real(array) for array in outputs], True

    def _is_passed_on(self, op: Op) -> bool:
        """Whether it quantises data that is dequantised again at once, and is not to round."""
        if self._how.rounds or op.type != "QuantizeLinear" or self._is_fixed(op.data(0)) or op.outputs[0] is None:
            return False
        output = op.outputs[0]
        return not output.is_output and all(use.op.type == "DequantizeLinear" for use in output.readers)

    def _constant_node(self, op: Op) -> Array:
        if (tensor := op.attribute("value")) is not None:
            return self._store.stored(tensor)
        for attribute in op.node.attribute:
            array = np.asarray(op.attribute(attribute.name))
            return array.astype(str) if array.dtype.kind in "SO" else _as_real(array)
        raise NotComputed("a Constant without a value")

    def _if(self, op: Op, values: Known) -> Sequence[Num]:
        condition = self._num(op.data(0), values)
        if condition.error is not None and condition.error.any() and op not in self._how.forced:
            raise NotComputed("rounding decides which branch it takes")
        chosen = "then_branch" if bool(np.asarray(condition.value).reshape(-1)[0]) else "else_branch"
        chosen = self._how.forced.get(op, chosen)
        self.coverage |= Coverage(taken=frozenset({(op, chosen)}))
        return self._run_body(body(op, chosen), [], values)

    def _repeated(self, op: Op, inputs: Sequence[Num], repeat: Repeat, values: Known) -> Sequence[Num]:
        """A Loop or Scan, unless it and those around it are too many steps together: that is known before the first."""
        around = self._nest
        self._nest *= max(1, trips(op, inputs))
        try:
            if self._nest > _MOST_ITERATIONS:
                raise NotComputed(f"more than {_MOST_ITERATIONS} iterations")
            return repeat(op, inputs, partial(self._iterate, values=values, is_counted=op.type == "Loop"))
        finally:
            self._nest = around

    def _iterate(self, scope: Scope, given: Sequence[Num], values: Known, *, is_counted: bool) -> list[Num]:
        self._iterations += 1
        if is_counted:
            self.coverage |= Coverage(turns=int(given[0].value))
        if self._iterations > _MOST_ITERATIONS:
            raise NotComputed(f"more than {_MOST_ITERATIONS} iterations")
        return self._run_body(scope, given, values)

    def _run_body(self, scope: Scope, given: Sequence[Num], values: Known) -> list[Num]:
        assert isinstance(scope.proto, onnx.GraphProto)
        inner: Known = dict(values)
        inner.update(zip((scope.own(entry.name) for entry in scope.proto.input), given, strict=True))
        for op in scope.live_ops():
            self._step(op, inner)
        return [self._num(scope.lookup(entry.name), inner) for entry in scope.proto.output]


def _aligned(op: Op, inputs: list[Num]) -> list[Num]:
    """Before opset 7 an attribute says to which axes of the first input those of the second belong; PRelu's is 1."""
    axis = op.attribute("axis", 1 if op.type == "PRelu" else None)
    if op.opset >= 7 or op.type not in _WITH_AXIS or axis is None or np.size(inputs[1].value) == 1:
        return inputs
    a, b = inputs
    behind = max(0, np.ndim(a.value) - axis % max(np.ndim(a.value), 1) - np.ndim(b.value))
    shape = (*np.shape(b.value), *[1] * behind)
    error = None if b.error is None else b.error.reshape(shape)
    return [a, b._replace(value=b.value.reshape(shape), error=error)]


def _off(num: Num, rounding: Rounding) -> Num:
    """A number that was rounded, beside what it is off already."""
    if not isinstance(num.value, np.ndarray | np.generic):
        return num
    error = rounding.of(np.asarray(num.value))
    return Num(num.value, error, fresh=True) if num.error is None else Num(num.value, num.error + error)


def _further(num: Num, other: Any) -> Num:
    """A result that may as well be another."""
    if not isinstance(num.value, np.ndarray):
        return num
    error = distance(num.value, other)
    return num._replace(error=error if num.error is None else num.error + error, fresh=False)


def _retunings(op: Op) -> Iterator[Op]:
    """An operator with each of its float32 attributes in turn a little lower, then a little higher."""
    for number, attribute in enumerate(op.node.attribute):
        for sign in (-1, 1) if attribute.type == onnx.AttributeProto.FLOAT else ():
            node = onnx.NodeProto()
            node.CopyFrom(op.node)
            node.attribute[number].f *= 1 + sign * 2.0**-23  # half an ulp would be rounded away again
            yield op.with_node(node)


def _as_real(array: Any) -> Any:
    """In float64 if it is floating-point: some operators of onnx.reference return float32."""
    return array.astype(as_real(array.dtype), copy=False) if isinstance(array, np.ndarray) else array


def _last_reads(ops: Sequence[Op], keep: Collection[Value]) -> dict[int, list[Value]]:
    """By the place of an operator, the values that nothing reads behind it."""
    last = {value: number for number, op in enumerate(ops) for value in op.reads()}
    done: dict[int, list[Value]] = {}
    for value, number in last.items():
        if value not in keep:
            done.setdefault(number, []).append(value)
    return done


def _is_cast_of_stored(value: Value | None) -> bool:
    op = None if value is None else value.producer
    return (
        op is not None and op.type in ("Cast", "CastLike") and (is_stored(op.data(0)) or _is_cast_of_stored(op.data(0)))
    )


def is_stored(value: Value) -> bool:
    """Whether it is an initializer or the output of a Constant node."""
    if value.producer is not None:
        return value.producer.type == "Constant"
    return value.tensor is not None or value.sparse is not None


def _are_tied(left: Num, right: Num) -> bool:
    """Whether two are equal somewhere, and not by chance of rounding."""
    equal = np.equal(left.value, right.value)
    for num in (left, right):
        equal = equal if num.error is None else equal & (num.error == 0)
    return bool(equal.any())
