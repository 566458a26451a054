"""LSTM, GRU and RNN: what is done to their input X [sequence, batch, I] goes into the weights that read it.

W is [directions, gates * hidden, I], and B is [directions, 2 * gates * hidden]: the biases of W, then those of the
recurrent weights, which see no input.
"""

from __future__ import annotations

import numpy as np

from bnfold.affine import Affine
from bnfold.graph import Op
from bnfold.ops.linear import rescaled
from bnfold.ops.rule import Assign, Edit, Edits, OpRule, along, operands_type, refuse_rank_other_than, static
from bnfold.ops.weights import Exact, in_type_of
from bnfold.reasons import Reason, Refused

DATA, WEIGHT, BIAS = 0, 1, 3
_FEATURES = 2


def recurrent_absorbs_input(op: Op, index: int, affine: Affine) -> Edits:
    """W (s x + t) + b  =  (W s) x + (b + W t), in every gate and direction"""
    refuse_rank_other_than(op, affine, 3)
    shape = static(op, WEIGHT)
    if len(shape) != 3:
        raise Refused(Reason.WRONG_SIZE, value=op.data(WEIGHT).name, size=f"shape {shape}", expected="rank 3")
    scale, shift = along(op, affine, _FEATURES, shape[2])
    edits: list[Edit] = rescaled(op, WEIGHT, scale.reshape(1, 1, -1))
    if not affine.has_shift:
        return edits
    weight, bias = op.constant(WEIGHT), op.optional_constant(BIAS)
    added = (weight.float64() * in_type_of(weight, shift)).sum(axis=2)
    sums = np.concatenate([added, np.zeros_like(added)], axis=1)
    if bias is not None and bias.shape != sums.shape:
        raise Refused(Reason.WRONG_SIZE, value=op.data(BIAS).name, size=f"shape {bias.shape}", expected=sums.shape)
    dtype = operands_type(op) if bias is None else bias.dtype
    return [*edits, Assign(op, BIAS, Exact(sums if bias is None else bias.float64() + sums, dtype))]


RULES = dict.fromkeys(("LSTM", "GRU", "RNN"), OpRule(absorb_input=recurrent_absorbs_input, data_inputs=(DATA,)))
