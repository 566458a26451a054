"""What each operator can do with an affine. To support another: a rule in one of these files, a row in its table."""

from bnfold.ops import (
    einsum,
    joining,
    layout,
    linear,
    normalization,
    pointwise,
    pooling,
    quantized,
    recurrent,
    resampling,
    selection,
)
from bnfold.ops.rule import AddBehind, Assign, Detach, Edit, Edits, Moved, Omit, OpRule, Retype, SetAttribute, Step

RULES: dict[str, OpRule] = {
    **linear.RULES,
    **recurrent.RULES,
    **pointwise.RULES,
    **pooling.RULES,
    **layout.RULES,
    **joining.RULES,
    **selection.RULES,
    **resampling.RULES,
    **einsum.RULES,
    **normalization.RULES,
    **quantized.RULES,
}

__all__ = [
    "RULES",
    "AddBehind",
    "Assign",
    "Detach",
    "Edit",
    "Edits",
    "Moved",
    "Omit",
    "OpRule",
    "Retype",
    "SetAttribute",
    "Step",
]
