"""Who makes a value that nothing else needs, so that it may be made otherwise."""

from __future__ import annotations

from collections.abc import Container

from bnfold.affine import Affine
from bnfold.graph import Op, Scope, Value
from bnfold.ops.layout import dropout
from bnfold.reasons import Refused

HANDS_ON = frozenset({"Identity", "Dropout"})
"""What may hand a value on as it is; `hands_on` says whether it does."""
_MOST_PASSED = 16


def is_read_once(value: Value) -> bool:
    """Whether one operator is all that uses a value."""
    return len(value.readers) == 1 and not value.is_output


def made_alone(value: Value, scope: Scope, types: Container[str]) -> Op | None:
    """The operator that makes a value, if it is of one of these types, in that graph, and made for one reader."""
    op = value.producer
    if op is None or op.type not in types or op.is_kept or op.scope is not scope:
        return None
    makes_more = any(other is not None and (other.readers or other.is_output) for other in op.outputs[1:])
    return op if is_read_once(value) and not makes_more else None


def passed_unchanged(value: Value) -> Value:
    """The value that Identity and Dropout in inference mode hand on; a mask is none."""
    for _ in range(_MOST_PASSED):
        op = value.producer
        if op is None or value is not op.outputs[0] or not hands_on(op):
            break
        value = op.data(0)
    return value


def hands_on(op: Op) -> bool:
    """Whether an operator is an Identity, or a Dropout that drops nothing."""
    if op.type != "Dropout":
        return op.type == "Identity"
    try:
        dropout(op, Affine.identity(1))
    except Refused:
        return False
    return True
