"""What a Conv, Gemm or MatMul can take in from beside it: branches of the same sum that read the same value.

This turns the training form of RepVGG, MobileOne or RepViT into the form they are deployed in. The centre tap of a
Conv that keeps the size never reads padding, so here a shift is no obstacle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bnfold.affine import Affine, FloatArray
from bnfold.graph import Op, is_float
from bnfold.ops.linear import ADDEND, BIAS, CHANNELS, WEIGHT, new_addend
from bnfold.ops.rule import Assign, Edits, along, refuse_rank_other_than, static
from bnfold.ops.weights import Enlarged, Exact, bound
from bnfold.reasons import Reason, Refused

Pads = list[tuple[int, int]]


def conv_absorbs_beside(conv: Op, affine: Affine) -> Edits:
    """(sx + t) + W*x  =  W'*x + t  with  W'[o, o mod I/groups, centre] = W[…] + s_o"""
    shape = static(conv, WEIGHT)
    refuse_rank_other_than(conv, affine, len(shape))
    channels, per_group, *kernel = shape
    if channels != per_group * conv.attribute("group", 1):
        raise Refused(Reason.UNSUPPORTED, op_type=conv.type, detail="it changes the number of channels")
    if not _keeps_size(conv, kernel):
        raise Refused(Reason.UNSUPPORTED, op_type=conv.type, detail="it does not keep the size")
    scale, shift = along(conv, affine, CHANNELS, channels)
    centre = [size // 2 for size in kernel]

    def add(weight: FloatArray) -> None:
        outputs = np.arange(channels)
        weight[(outputs, outputs % per_group, *centre)] += scale  # type: ignore[index]  # numpy takes the mixed tuple

    enlarged = Enlarged(conv.constant(WEIGHT), add, float(np.abs(scale).max()))
    return [Assign(conv, WEIGHT, enlarged), *_more_bias(conv, shift)]


def conv_absorbs_conv(host: Op, guest: Op, sign: int) -> Edits:
    """W*x ± V*x  =  (W ± V')*x  with V' the smaller kernel at the place in the larger that the pads imply"""
    ours, theirs = static(host, WEIGHT), static(guest, WEIGHT)
    groups, guest_groups = host.attribute("group", 1), guest.attribute("group", 1)
    comparable = len(ours) == len(theirs) and ours[0] == theirs[0] and ours[1] * groups == theirs[1] * guest_groups
    if not comparable or guest_groups % groups:
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="channels or groups do not nest")
    place = _place(host, guest, ours[2:], theirs[2:])
    added = guest.constant(WEIGHT)
    if added.dtype != host.constant(WEIGHT).dtype:
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="another type")

    def add(weight: FloatArray) -> None:
        values = added.float64()
        rows = theirs[0] // guest_groups
        for group in range(guest_groups):
            outputs = slice(group * rows, (group + 1) * rows)
            first = (group % (guest_groups // groups)) * theirs[1]
            weight[(outputs, slice(first, first + theirs[1]), *place)] += sign * values[outputs]

    bias = guest.optional_constant(BIAS)
    shift = np.zeros(theirs[0]) if bias is None else bias.float64()
    return [Assign(host, WEIGHT, Enlarged(host.constant(WEIGHT), add, bound(added))), *_more_bias(host, sign * shift)]


def gemm_absorbs_gemm(host: Op, guest: Op, sign: int) -> Edits:
    """A x·B + b C ± (a' x·B' + b' C')  =  a x·(B ± a'/a B') + (b C ± b' C')"""
    alpha = host.attribute("alpha", 1.0)
    if bool(host.attribute("transA", 0)) != bool(guest.attribute("transA", 0)) or not alpha:
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="another orientation")
    turned = bool(host.attribute("transB", 0)) != bool(guest.attribute("transB", 0))
    factor = sign * guest.attribute("alpha", 1.0) / alpha
    edits = _sum_of_weights(host, guest, factor, turned=turned)
    addend = guest.optional_constant(ADDEND)
    if addend is None or not guest.attribute("beta", 1.0):
        return edits
    shift = sign * guest.attribute("beta", 1.0) * addend.float64()
    return [*edits, *new_addend(host, Affine(np.ones((1, 1)), shift.reshape((1,) * (2 - shift.ndim) + shift.shape)))]


def matmul_absorbs_matmul(host: Op, guest: Op, sign: int) -> Edits:
    """x·W ± x·V  =  x·(W ± V)"""
    return _sum_of_weights(host, guest, sign, turned=False)


def _sum_of_weights(host: Op, guest: Op, factor: float, *, turned: bool) -> Edits:
    own, added = host.constant(WEIGHT), guest.constant(WEIGHT)
    if not is_float(own.dtype):  # integers wrap around, and no real number stands for that
        raise Refused(Reason.NOT_FLOAT, value=host.data(WEIGHT).name)
    shape = added.shape[::-1] if turned else added.shape
    if own.shape != shape or own.dtype != added.dtype:
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail=f"weights of shapes {own.shape} and {shape}")

    def add(weight: FloatArray) -> None:
        weight += factor * (added.float64().T if turned else added.float64())

    return [Assign(host, WEIGHT, Enlarged(own, add, abs(factor) * bound(added)))]


ABSORBS_BESIDE: dict[str, Callable[[Op, Op, int], Edits]] = {
    "Conv": conv_absorbs_conv,
    "Gemm": gemm_absorbs_gemm,
    "MatMul": matmul_absorbs_matmul,
}
"""For operators of the same type that read the same value: host, guest, and the sign of the guest in the sum."""


def _more_bias(conv: Op, shift: FloatArray) -> Edits:
    bias = conv.optional_constant(BIAS)
    if not shift.any():
        return []
    if bias is None:
        return [Assign(conv, BIAS, Exact(shift.copy(), conv.constant(WEIGHT).dtype))]
    return [Assign(conv, BIAS, Exact(bias.float64() + shift, bias.dtype))]


def _keeps_size(conv: Op, kernel: Sequence[int]) -> bool:
    """Stride 1 and an odd kernel, padded so that its centre lies on the position it computes."""
    dilations = conv.attribute("dilations") or [1] * len(kernel)
    centred = [
        size % 2 == 1 and begin == end == dilation * (size // 2)
        for size, dilation, (begin, end) in zip(kernel, dilations, _pads(conv, kernel), strict=True)
    ]
    return all(centred) and all(stride == 1 for stride in conv.attribute("strides") or ())


def _pads(conv: Op, kernel: Sequence[int]) -> Pads:
    """Padding before and after, for each spatial axis."""
    auto_pad = conv.attribute("auto_pad", b"NOTSET")
    if auto_pad == b"VALID":
        return [(0, 0)] * len(kernel)
    if auto_pad in (b"NOTSET", b""):
        pads = conv.attribute("pads") or [0] * (2 * len(kernel))
        return list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    if any(stride != 1 for stride in conv.attribute("strides") or ()):
        raise Refused(
            Reason.UNSUPPORTED, op_type=conv.type, detail="auto_pad with a stride depends on the input's size"
        )
    dilations = conv.attribute("dilations") or [1] * len(kernel)
    totals = [dilation * (size - 1) for size, dilation in zip(kernel, dilations, strict=True)]
    small = [(total // 2, total - total // 2) for total in totals]
    return small if auto_pad == b"SAME_UPPER" else [(after, before) for before, after in small]


def _place(host: Op, guest: Op, ours: Sequence[int], theirs: Sequence[int]) -> tuple[slice, ...]:
    """Where the guest's taps lie among the host's."""
    if (host.attribute("strides") or [1] * len(ours)) != (guest.attribute("strides") or [1] * len(ours)):
        raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="another stride")
    slices = []
    steps = host.attribute("dilations") or [1] * len(ours)
    guest_steps = guest.attribute("dilations") or [1] * len(ours)
    sizes = zip(ours, theirs, steps, guest_steps, _pads(host, ours), _pads(guest, theirs), strict=True)
    for size, guest_size, step, guest_step, pad, guest_pad in sizes:
        first, after = pad[0] - guest_pad[0], pad[1] - guest_pad[1]
        reach, guest_reach = step * (size - 1), guest_step * (guest_size - 1)
        nests = first >= 0 and after >= 0 and first % step == 0 and reach == first + guest_reach + after
        if not nests or (guest_size > 1 and guest_step != step):
            raise Refused(Reason.UNSUPPORTED, op_type=host.type, detail="one kernel does not lie within the other")
        slices.append(slice(first // step, first // step + guest_size))
    return tuple(slices)
