"""bnfold as a pass of onnx_ir, to stand beside the passes of that package; the extra `bnfold[ir]` brings it.

>>> import onnx_ir as ir  # doctest: +SKIP
>>> from bnfold.passes import FoldBatchNorm
>>> result = ir.passes.Sequential(FoldBatchNorm(), ir.passes.common.RemoveUnusedNodesPass())(model)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

import onnx_ir

import bnfold

__all__ = ["FoldBatchNorm"]


class FoldBatchNorm(onnx_ir.passes.FunctionalPass):
    """Folds BatchNormalizations, and compares the result with the model that came in, which is not changed."""

    def __init__(self, **options: Any) -> None:
        """Takes the keyword arguments of `bnfold.optimize`, but those that say where to write."""
        super().__init__()
        if writing := {"output", "in_place", "overwrite", "certificate"} & set(options):
            raise TypeError(f"a pass writes nothing: {', '.join(sorted(writing))}")
        self._options = options

    def call(self, model: onnx_ir.Model) -> onnx_ir.passes.PassResult:
        """The folded model.

        Raises:
            ModelError: The model cannot be read, or is over 2 GiB.
            NotEquivalent: The folded model computes something else.
            NotVerified: The two could not be compared, and the option ``verify`` is "require".
        """
        result = bnfold.optimize(model, **self._options)
        return onnx_ir.passes.PassResult(result.to_ir(), result.plan.changes or "calibrate" in self._options)
