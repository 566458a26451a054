"""The weights of a model, read when they are needed, and what else is made once and used again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bnfold.affine import FloatArray
from bnfold.graph import Op, Sparse, Value
from bnfold.model_io import Model
from bnfold.verification.float64.carried import Num, Rounding
from bnfold.verification.float64.kernel import Array, as_real
from bnfold.verification.float64.reference import cropped, one_node, refuse_passed_over

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator


_KEPT = 1 << 26  # bytes of weights and of their errors, for the regions to come


class Store:
    """Weights, kept until `forget`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._references: dict[tuple[Op, tuple[str, ...]], ReferenceEvaluator] = {}
        self._constants: dict[Value, Array] = {}
        self._errors: dict[tuple[Value, Rounding], FloatArray] = {}

    def constant(self, value: Value) -> Array:
        """An initializer in float64, or in its own type if that is not floating-point."""
        if value not in self._constants:
            if value.sparse is not None:
                dense = Sparse(self._model, value.sparse).array()
                self._constants[value] = dense.astype(as_real(dense.dtype), copy=False)
            else:
                assert value.tensor is not None
                self._constants[value] = self.stored(value.tensor)
        return self._constants[value]

    def rounded(self, value: Value, rounding: Rounding | None) -> Num:
        """An initializer, and how far it may be off."""
        num = Num(self.constant(value))
        if rounding is None:
            return num
        if (value, rounding) not in self._errors:
            self._errors[value, rounding] = rounding.of(num.value)
        return Num(num.value, self._errors[value, rounding], fresh=True)

    def forget(self, values: Collection[Value] | None = None) -> None:
        """Lets go of some weights; of what was made to evaluate a region, but for what is small enough to be kept.

        Most weights are read by one region, those of a residual stream or of a loop that was unrolled by many.
        """
        if values is None:
            kept = [*self._constants.values(), *self._errors.values()]
            if sum(array.nbytes for array in kept) > _KEPT:
                self._constants.clear()
                self._errors.clear()
            self._references.clear()
        for value in values or ():
            self._constants.pop(value, None)

    def stored(self, tensor: onnx.TensorProto) -> Array:
        """A tensor of the file likewise."""
        array = self._model.array(tensor)
        with np.errstate(invalid="ignore"):  # a NaN may be a signalling one
            return array.astype(as_real(array.dtype), copy=False)

    def reference(self, op: Op, inputs: Sequence[Any]) -> Sequence[Any]:
        """What ONNX's reference implementation makes of it."""
        refuse_passed_over(op, inputs)
        inputs = cropped(op, inputs)
        key = (op, tuple(str(getattr(value, "dtype", "")) for value in inputs))
        if key not in self._references:
            self._references[key] = one_node(op, inputs)
        feed = {f"i{number}": value for number, value in enumerate(inputs) if value is not None}
        outputs = iter(self._references[key].run(None, feed))
        return [None if value is None else next(outputs) for value in op.outputs]
