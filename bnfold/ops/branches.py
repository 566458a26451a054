"""What a Conv, Gemm or MatMul can take in from beside it: branches of the same sum that read the same value.

This turns the training form of RepVGG, MobileOne or RepViT into the form they are deployed in. The centre tap of a
Conv that keeps the size never reads padding, so here a shift is no obstacle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bnfold.affine import Affine, FloatArray
from bnfold.graph import Op
from bnfold.ops.kernels import Kernel, Window, unbiased, window_of
from bnfold.ops.linear import BIAS, CHANNELS, RIGHT, WEIGHT, new_addend
from bnfold.ops.matrices import Matrix, product_of
from bnfold.ops.rule import Assign, Edits, along, refuse_rank_other_than, static
from bnfold.ops.weights import Enlarged, Exact
from bnfold.reasons import Reason, Refused


def conv_absorbs_beside(conv: Op, affine: Affine) -> Edits:
    """(sx + t) + W*x  =  W'*x + t  with  W'[o, o mod I/groups, centre] = W[…] + s_o"""
    shape = static(conv, WEIGHT)
    refuse_rank_other_than(conv, affine, len(shape))
    channels, per_group, *kernel = shape
    if channels != per_group * conv.attribute("group", 1):
        raise Refused(Reason.UNSUPPORTED, op_type=conv.type, detail="it changes the number of channels")
    if not _keeps_size(window_of(conv, kernel), kernel):
        raise Refused(Reason.UNSUPPORTED, op_type=conv.type, detail="it does not keep the size")
    scale, shift = along(conv, affine, CHANNELS, channels)
    centre = [size // 2 for size in kernel]

    def add(weight: FloatArray) -> None:
        outputs = np.arange(channels)
        weight[(outputs, outputs % per_group, *centre)] += scale  # type: ignore[index]  # numpy takes the mixed tuple

    enlarged = Enlarged(conv.constant(WEIGHT), add, float(np.abs(scale).max()))
    return [Assign(conv, WEIGHT, enlarged), *_more_bias(conv, shift)]


def conv_absorbs_kernel(host: Op, guest: Kernel, sign: int) -> Edits:
    """W*x ± V*x  =  (W ± V')*x with V' the smaller kernel at the place in the larger that the pads imply"""
    own = unbiased(host)
    comparable = len(own.shape) == len(guest.shape) and own.shape[0] == guest.shape[0] and own.inputs == guest.inputs
    if not comparable or guest.groups % own.groups:
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="channels or groups do not nest")
    place = _place(host, own, guest)
    if guest.dtype != own.dtype:
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="another type")

    def add(weight: FloatArray) -> None:
        values = guest.weights()
        rows, columns = guest.shape[0] // guest.groups, guest.shape[1]
        for group in range(guest.groups):
            outputs = slice(group * rows, (group + 1) * rows)
            first = (group % (guest.groups // own.groups)) * columns
            weight[(outputs, slice(first, first + columns), *place)] += sign * values[outputs]

    enlarged = Enlarged(host.constant(WEIGHT), add, guest.most())
    return [Assign(host, WEIGHT, enlarged), *_more_bias(host, sign * guest.bias)]


def gemm_absorbs_matrix(host: Op, guest: Matrix, sign: int) -> Edits:
    """A x·B + b C ± (x·B' + c)  =  A x·(B ± B'/A) + (b C ± c)"""
    alpha = host.attribute("alpha", 1.0)
    if not alpha:
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="an alpha of zero")
    edits = _sum_of_weights(host, guest, sign / alpha)
    return edits if guest.addend is None else [*edits, *new_addend(host, Affine(np.ones((1, 1)), sign * guest.addend))]


def matmul_absorbs_matrix(host: Op, guest: Matrix, sign: int) -> Edits:
    """x·W ± x·V  =  x·(W ± V)"""
    if guest.addend is not None:
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="it has no addend")
    return _sum_of_weights(host, guest, sign)


def _sum_of_weights(host: Op, guest: Matrix, factor: float) -> Edits:
    own = product_of(host)
    if own.is_turned != guest.is_turned:
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="another orientation")
    if own.shape != guest.shape or own.dtype != guest.dtype:
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail=f"weights of shapes {own.shape} and {guest.shape}")
    turned = bool(host.type == "Gemm" and host.attribute("transB", 0))

    def add(weight: FloatArray) -> None:
        weight += factor * (guest.weights().T if turned else guest.weights())

    return [Assign(host, RIGHT, Enlarged(host.constant(RIGHT), add, abs(factor) * guest.most()))]


def absorb_map(host: Op, guest: Kernel | Matrix, sign: int) -> tuple[Callable[..., Edits], Edits]:
    """The rule by which an operator takes in what is added to it, or subtracted, and what that changes.

    Raises:
        Refused: it cannot.
    """
    match host.type, guest:
        case "Conv", Kernel():
            return conv_absorbs_kernel, conv_absorbs_kernel(host, guest, sign)
        case "Gemm", Matrix():
            return gemm_absorbs_matrix, gemm_absorbs_matrix(host, guest, sign)
        case "MatMul", Matrix():
            return matmul_absorbs_matrix, matmul_absorbs_matrix(host, guest, sign)
    raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="another kind of operator")


def _more_bias(conv: Op, shift: FloatArray) -> Edits:
    bias = conv.optional_constant(BIAS)
    if not shift.any():
        return []
    if bias is None:
        return [Assign(conv, BIAS, Exact(shift.copy(), conv.constant(WEIGHT).dtype))]
    return [Assign(conv, BIAS, Exact(bias.float64() + shift, bias.dtype))]


def _keeps_size(window: Window, taps: Sequence[int]) -> bool:
    """Stride 1 and an odd kernel, padded so that its centre lies on the position it computes."""
    centred = [
        size % 2 == 1 and begin == end == dilation * (size // 2)
        for size, dilation, (begin, end) in zip(taps, window.dilations, window.pads, strict=True)
    ]
    return all(centred) and window.steps_by_one


def _place(host: Op, own: Kernel, guest: Kernel) -> tuple[slice, ...]:
    """Where the guest's taps lie among the host's."""
    ours, theirs = own.window, guest.window
    if ours.strides != theirs.strides:
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="another stride")
    slices = []
    sizes = zip(own.taps, guest.taps, ours.dilations, theirs.dilations, ours.pads, theirs.pads, strict=True)
    for size, guest_size, step, guest_step, pad, guest_pad in sizes:
        first, after = pad[0] - guest_pad[0], pad[1] - guest_pad[1]
        reach, guest_reach = step * (size - 1), guest_step * (guest_size - 1)
        nests = first >= 0 and after >= 0 and first % step == 0 and reach == first + guest_reach + after
        if not nests or (guest_size > 1 and guest_step != step):
            raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="one kernel does not lie within the other")
        slices.append(slice(first // step, first // step + guest_size))
    return tuple(slices)
