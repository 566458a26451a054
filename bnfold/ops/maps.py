"""Operators that are linear in their data, as the map that they compute; two in a row are one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bnfold.graph import Op
from bnfold.ops import kernels, matrices
from bnfold.ops.kernels import Kernel, kernel_of
from bnfold.ops.matrices import Matrix, matrix_of
from bnfold.reasons import Reason, Refused

Map = Kernel | Matrix

MAPS: dict[str, Callable[[Op], Map]] = {
    "Conv": kernel_of,
    "AveragePool": kernel_of,
    "Gemm": matrix_of,
    "MatMul": matrix_of,
}


def map_of(ops: Sequence[Op]) -> Map:
    """What operators compute of the data of the first, each of which reads what the one before it makes.

    Raises:
        Refused: it is not one Conv, nor one matrix.
    """
    maps = [MAPS[op.type](op) for op in ops]
    whole = maps[0]
    for each in maps[1:]:
        whole = in_a_row(whole, each)
    return whole


def in_a_row(first: Map, second: Map) -> Map:
    """Two maps as one; see the two of the same name."""
    match first, second:
        case Kernel(), Kernel():
            return kernels.in_a_row(first, second)
        case Matrix(), Matrix():
            return matrices.in_a_row(first, second)
    raise Refused(Reason.UNSUPPORTED, op_type="MatMul", detail="a Conv beside it")
