"""Evaluating some operators of a graph in float64: floating-point types stand for the real numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from bnfold.graph import Graph, Op, Scope, Sparse, Value, is_float
from bnfold.graph.evaluate import NotEvaluated, cast, saturates
from bnfold.limits import NEVER, Deadline
from bnfold.model_io import Model
from bnfold.verify.float64.control import REPEATING, Repeat, body, trips
from bnfold.verify.float64.kernel import NotComputed, as_real
from bnfold.verify.float64.kernels import KERNELS, RANDOM, unrounded
from bnfold.verify.float64.windows import sees_all
from bnfold.verify.regional.numbering import captured
from bnfold.verify.regional.scatter import noisy, rounding_to

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[Any]
Known = dict[Value, Any]
_GATES = {"LSTM": [b"Sigmoid", b"Tanh", b"Tanh"], "GRU": [b"Sigmoid", b"Tanh"], "RNN": [b"Tanh"]}
# of which onnx.reference makes something else in a form that we do not compute
_OURS_ALONE = RANDOM | {"Dropout", "BatchNormalization", "ConvTranspose"}
_PASSED_OVER = ("activation_alpha", "activation_beta", "clip", "input_forget")
_MOST_ITERATIONS = 1 << 11  # of all Loops and Scans together, those in others counted each time
_OLD_MODES = {b"bilinear": b"linear", b"bicubic": b"cubic"}  # which onnx.reference knows by the new names only


class CannotEvaluate(Exception):
    """An operator could not be evaluated. Its text names it and says why."""


class OutOfTime(CannotEvaluate):
    """The deadline is over."""

    def __init__(self, text: str = "there was no time left for it") -> None:
        super().__init__(text)


class Evaluator:
    """Evaluates operators of one model. Weights are read when they are needed, and kept until `forget`."""

    def __init__(self, model: Model, deadline: Deadline = NEVER) -> None:
        self._model = model
        self._deadline = deadline
        self._iterations = 0
        self._nest = 1  # iterations of the Loops and Scans around an operator, multiplied
        self._references: dict[tuple[Op, tuple[str, ...]], ReferenceEvaluator] = {}
        self._constants: dict[Value, Array] = {}
        self._fixed: set[Value] = set()
        self.scatter: np.random.Generator | None = None
        """Makes the noise that every value gets, where there is one."""
        self.folds: np.random.Generator | None = None
        """Makes the rounding that what is computed from constants gets, where there is some."""
        self.referred: set[Op] = set()
        """The operators that onnx.reference evaluated on data."""
        self.rounds = True
        """Whether data is rounded where it is quantised and dequantised again at once."""
        self.blind = False
        """Whether a part of some weight met nothing but padding since this was last set to False."""
        self.taken: dict[Op, set[str]] = {}
        """The branches of each If that were taken."""
        self.counts = True
        """Whether a branch that is taken counts: for zeros most of them come to the same."""
        self.refused = ""
        """Why values that the other side took were not taken."""
        self.forced: dict[Op, str] = {}
        """Branches that are taken whatever the condition says."""

    def run(self, ops: Iterable[Op], known: Mapping[Value, Array], target: Value) -> Array:
        """The target, from values that are known and the operators, in graph order, that make it from them.

        Raises:
            CannotEvaluate: An operator is unknown, or does not fit its inputs.
        """
        result = self._value(target, self.trace(ops, known))
        if not isinstance(result, np.ndarray):
            raise CannotEvaluate(f"{target.name!r} is no tensor")
        return result

    def outputs(self, graph: Graph, feed: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors among the outputs of the whole model, without functions.

        Args:
            graph: Its index.
            feed: Its inputs by name, in float64 where they are floating-point.

        Raises:
            CannotEvaluate: An operator is unknown, or does not fit its inputs.
        """
        wanted = {entry.name: graph.main.lookup(entry.name) for entry in graph.model.proto.graph.output}
        known = {graph.main.own(name): array for name, array in feed.items()}
        values = self.trace(graph.main.live_ops(), known, keep=frozenset(wanted.values()))
        found = {name: self._value(value, values) for name, value in wanted.items()}
        return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}

    def trace(self, ops: Iterable[Op], known: Mapping[Value, Array], keep: Collection[Value] | None = None) -> Known:
        """All values on the way; with ``keep``, only those and what is still needed are held at a time.

        Raises:
            CannotEvaluate: An operator is unknown, or does not fit its inputs.
        """
        values: Known = dict(known)
        for _ in self._steps(ops, values, keep):
            pass
        return values

    def shapes(self, graph: Graph, feed: Mapping[str, Array]) -> dict[Value, tuple[int, ...]]:
        """The shapes of all values outside bodies, as far as the model can be evaluated; see `outputs`."""
        values: Known = {graph.main.own(name): array for name, array in feed.items()}
        found: dict[Value, tuple[int, ...]] = {}
        with suppress(CannotEvaluate):
            for op in self._steps(graph.main.live_ops(), values, keep=frozenset()):
                made = ((value, values.get(value)) for value in op.outputs if value is not None)
                found |= {value: array.shape for value, array in made if isinstance(array, np.ndarray)}
        return found

    def _steps(self, ops: Iterable[Op], values: Known, keep: Collection[Value] | None) -> Iterator[Op]:
        """Runs the operators in turn; what is not needed any more goes when the next is asked for."""
        self._fixed = {value for value in values if is_stored(value)}
        self._iterations = 0
        ops = list(ops)
        done = {} if keep is None else _last_reads(ops, keep)
        with np.errstate(all="ignore"):
            for number, op in enumerate(ops):
                self._step(op, values)
                yield op
                for value in done.get(number, ()):
                    values.pop(value, None)
                    self._constants.pop(value, None)

    def _step(self, op: Op, values: Known) -> None:
        """Runs an operator. What a body makes counts as data."""
        self._run(op, values)
        reads = op.inputs[:1] if op.type == "CastLike" else op.inputs  # the other one says its type and no more
        if not op.bodies and all(map(self._is_fixed, reads)):
            self._fixed.update(value for value in op.outputs if value is not None)
            self._round(op, values)
            if self.folds is not None and op.type != "Constant":
                _fold(op, values, self.folds)

    def _is_fixed(self, value: Value | None) -> bool:
        """Whether it depends on no data."""
        return value is None or value in self._fixed or is_stored(value)

    def _round(self, op: Op, values: Known) -> None:
        """Rounds a constant that is cast to a narrower type; data is not rounded, as it stands for real numbers."""
        value, narrow = op.outputs[0], _cast_type(op)
        array = None if value is None else values[value]
        if value is None or narrow is None or not isinstance(array, np.ndarray) or array.dtype != np.float64:
            return
        try:
            rounded = cast(array, narrow, saturates=saturates(op))
        except NotEvaluated as error:
            raise CannotEvaluate(
                f"{op.type} {op.label!r}: runtimes differ in what it makes of {narrow.name}"
            ) from error
        values[value] = rounded.astype(np.float64)

    def constant(self, value: Value) -> Array:
        """An initializer in float64, or in its own type if that is not floating-point."""
        if value not in self._constants:
            if value.sparse is not None:
                dense = Sparse(self._model, value.sparse).array()
                self._constants[value] = dense.astype(as_real(dense.dtype), copy=False)
            else:
                assert value.tensor is not None
                self._constants[value] = self._stored(value.tensor)
        return self._constants[value]

    def forget(self) -> None:
        """Lets go of the weights of a region, and of what was noted of it."""
        self._constants.clear()
        self._references.clear()
        self.referred.clear()
        self.taken.clear()
        self.forced.clear()
        self.refused = ""

    def _stored(self, tensor: onnx.TensorProto) -> Array:
        array = self._model.array(tensor)
        with np.errstate(invalid="ignore"):  # a NaN may be a signalling one
            return array.astype(as_real(array.dtype), copy=False)

    def _value(self, value: Value | None, values: Known) -> Any:
        if value is None:
            return None
        if value not in values:
            if not is_stored(value):
                raise CannotEvaluate(f"{value.name!r} is not known")
            values[value] = self.constant(value)
        return values[value]

    def _run(self, op: Op, values: Known) -> None:
        if all(value is None or value in values for value in op.outputs):
            return  # a constant that the caller has moved
        if self._deadline.is_over:
            raise OutOfTime
        try:
            results = self._results(op, values)
        except CannotEvaluate:
            raise
        except NotComputed as error:
            raise CannotEvaluate(f"{op.type} {op.label!r}: {error}") from error
        except MemoryError as error:
            raise CannotEvaluate(f"{op.type} {op.label!r}: it takes more memory than there is") from error
        except Exception as error:  # whatever a foreign kernel does with arrays that do not fit
            text = " ".join(str(error).split())[:200]
            raise CannotEvaluate(f"{op.type} {op.label!r}: {type(error).__name__}: {text}") from error
        for value, result in zip(op.outputs, results, strict=False):
            if value is not None:
                values[value] = self._noted(result)

    def _noted(self, result: Any) -> Any:
        """A result in float64, with noise if there is to be some."""
        if not isinstance(result, np.ndarray):
            return result
        array = result.astype(as_real(result.dtype), copy=False)  # some operators of onnx.reference return float32
        return array if self.scatter is None else noisy(array, self.scatter)

    def _results(self, op: Op, values: Known) -> Sequence[Any]:
        if op.type == "Constant":
            return [self._constant_node(op)]
        if op.type == "If":
            return self._if(op, values)
        inputs = [self._value(value, values) for value in op.inputs]
        if repeat := REPEATING.get(op.type):
            return self._repeated(op, inputs, repeat, values)
        self.blind = self.blind or not sees_all(op, inputs)
        if kernel := unrounded if self._is_passed_on(op) else KERNELS.get(op.type):
            try:
                return kernel(op, inputs)
            except NotComputed:
                if op.type in _OURS_ALONE or op.node.domain:
                    raise
        return self._reference(op, inputs)

    def _is_passed_on(self, op: Op) -> bool:
        """Whether it quantises data that is dequantised again at once, and is not to round."""
        if self.rounds or op.type != "QuantizeLinear" or self._is_fixed(op.data(0)) or op.outputs[0] is None:
            return False
        output = op.outputs[0]
        return not output.is_output and all(use.op.type == "DequantizeLinear" for use in output.readers)

    def _constant_node(self, op: Op) -> Array:
        if (tensor := op.attribute("value")) is not None:
            return self._stored(tensor)
        for attribute in op.node.attribute:
            array = np.asarray(op.attribute(attribute.name))
            return array.astype(str) if array.dtype.kind in "SO" else array
        raise NotComputed("a Constant without a value")

    def _reference(self, op: Op, inputs: Sequence[Any]) -> Sequence[Any]:
        """What ONNX's reference implementation makes of it."""
        if op.type in _GATES:
            _refuse_passed_over(op, inputs)
        if not all(map(self._is_fixed, op.inputs)):
            self.referred.add(op)
        key = (op, tuple(str(getattr(value, "dtype", "")) for value in inputs))
        if key not in self._references:
            self._references[key] = _one_node(op, inputs)
        feed = {f"i{number}": value for number, value in enumerate(inputs) if value is not None}
        outputs = iter(self._references[key].run(None, feed))
        return [None if value is None else next(outputs) for value in op.outputs]

    def _if(self, op: Op, values: Known) -> Sequence[Any]:
        chosen = "then_branch" if bool(np.asarray(self._value(op.data(0), values)).reshape(-1)[0]) else "else_branch"
        chosen = self.forced.get(op, chosen)
        self.taken.setdefault(op, set()).update([chosen] * self.counts)
        return self._run_body(body(op, chosen), [], values)

    def _repeated(self, op: Op, inputs: Sequence[Any], repeat: Repeat, values: Known) -> Sequence[Any]:
        """A Loop or Scan, unless it and those around it are too many steps together: that is known before the first."""
        around = self._nest
        self._nest *= max(1, trips(op, inputs))
        try:
            if self._nest > _MOST_ITERATIONS:
                raise NotComputed(f"more than {_MOST_ITERATIONS} iterations")
            return repeat(op, inputs, partial(self._iterate, values=values))
        finally:
            self._nest = around

    def _iterate(self, scope: Scope, given: Sequence[Any], values: Known) -> list[Any]:
        self._iterations += 1
        if self._iterations > _MOST_ITERATIONS:
            raise NotComputed(f"more than {_MOST_ITERATIONS} iterations")
        return self._run_body(scope, given, values)

    def _run_body(self, scope: Scope, given: Sequence[Any], values: Known) -> list[Any]:
        assert isinstance(scope.proto, onnx.GraphProto)
        inner: Known = dict(values)
        inner.update(zip((scope.own(entry.name) for entry in scope.proto.input), given, strict=True))
        for op in scope.live_ops():
            self._step(op, inner)
        return [self._value(scope.lookup(entry.name), inner) for entry in scope.proto.output]


def _last_reads(ops: Sequence[Op], keep: Collection[Value]) -> dict[int, list[Value]]:
    """By the place of an operator, the values that nothing reads behind it."""
    last = {value: number for number, op in enumerate(ops) for value in [*op.inputs, *captured(op)] if value}
    done: dict[int, list[Value]] = {}
    for value, number in last.items():
        if value not in keep:
            done.setdefault(number, []).append(value)
    return done


def _refuse_passed_over(op: Op, inputs: Sequence[Any]) -> None:
    """Refuses the forms of recurrent operators that onnx.reference takes for the usual one."""
    usual = _GATES[op.type]
    gates = list(op.attribute("activations") or usual)
    if gates != usual * (len(gates) // len(usual)) or any(op.attribute(name) for name in _PASSED_OVER):
        raise NotComputed("other activations, clip or input_forget")
    if len(inputs) > 4 and inputs[4] is not None:
        raise NotComputed("sequence lengths")


def _fold(op: Op, values: Known, random: np.random.Generator) -> None:
    """Rounds a computed constant at random, to the type that it has."""
    for value in op.outputs:
        dtype = None if value is None else op.graph.dtype(value)
        if value is not None and dtype is not None and is_float(dtype):
            values[value] = noisy(values[value], random, rounding_to(dtype))


def _cast_type(op: Op) -> np.dtype[Any] | None:
    """The type that a Cast or a CastLike gives; None for other operators, and where it is not known."""
    if op.type == "CastLike":
        return op.graph.dtype(op.data(1))
    return np.dtype(helper.tensor_dtype_to_np_dtype(op.attribute("to"))) if op.type == "Cast" else None


def is_stored(value: Value) -> bool:
    """Whether it is an initializer or the output of a Constant node."""
    if value.producer is not None:
        return value.producer.type == "Constant"
    return value.tensor is not None or value.sparse is not None


def _one_node(op: Op, inputs: Sequence[Any]) -> ReferenceEvaluator:
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 -- takes long, and most networks do without

    node = onnx.NodeProto()
    node.CopyFrom(op.node)
    del node.input[:], node.output[:]
    node.input.extend("" if value is None else f"i{number}" for number, value in enumerate(inputs))
    node.output.extend("" if value is None else f"o{number}" for number, value in enumerate(op.outputs))
    for attribute in node.attribute:
        if op.type == "GridSample" and attribute.s in _OLD_MODES:
            attribute.s = _OLD_MODES[attribute.s]
        if attribute.name == "dtype":
            attribute.i = helper.np_dtype_to_tensor_dtype(as_real(helper.tensor_dtype_to_np_dtype(attribute.i)))
    entries = [
        helper.make_tensor_value_info(f"i{number}", _elem_type(value), None)
        for number, value in enumerate(inputs)
        if value is not None
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    opsets = [helper.make_opsetid(domain, version) for domain, version in op.scope.opsets.items()]
    graph = helper.make_graph([node], "one", entries, outputs)
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets))


def _elem_type(value: Any) -> int:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "UO":
        return int(helper.np_dtype_to_tensor_dtype(value.dtype))
    return int(onnx.TensorProto.STRING)
