"""Operators that are linear in their data, as the map that they compute; two in a row are one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bnfold.affine import Affine
from bnfold.graph import Op
from bnfold.ops import kernels, matrices
from bnfold.ops.borders import Border, border_of, bordered, inside_zeros
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
    whole: Map | None = None
    around: list[Op] = []  # what puts a border around what the next one reads
    for op in ops:
        if op.type not in MAPS:
            around.append(op)
            continue
        each = MAPS[op.type](op)
        if around:
            whole, each = _around(whole, border_of(around), each)
            around = []
        whole = each if whole is None else in_a_row(whole, each)
    if whole is None or around:
        raise Refused(Reason.UNSUPPORTED, op_type=ops[-1].type, detail="it is not linear")
    return whole


def _around(whole: Map | None, border: Border, each: Map) -> tuple[Map | None, Map]:
    """A border between two maps, as the padding of one of them."""
    if whole is None:
        if isinstance(each, Kernel):
            return None, inside_zeros(border, each)
    elif isinstance(whole, Kernel) and isinstance(each, Kernel):
        return bordered(whole, border, each), each
    raise Refused(Reason.UNSUPPORTED, op_type="MatMul", detail="padding before it")


def in_a_row(first: Map, second: Map) -> Map:
    """Two maps as one; see the two of the same name."""
    match first, second:
        case Kernel(), Kernel():
            return kernels.in_a_row(first, second)
        case Matrix(), Matrix():
            return matrices.in_a_row(first, second)
    raise Refused(Reason.UNSUPPORTED, op_type="MatMul", detail="a Conv beside it")


def of_affine(op: Op, affine: Affine, behind: Map) -> Kernel:
    """An affine as a map, of what another makes for ``op``.

    Raises:
        Refused: it is none along the channels of a Conv.
    """
    if isinstance(behind, Matrix):
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="an affine of a matrix")
    return kernels.of_affine(op, affine, behind)
