"""Why an affine could not go where it tried to: named, with the numbers that show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from bnfold import escape


class Reason(Enum):
    """Names are public: reports, docs/reasons.md and tests refer to them. Never rename one."""

    # the graph around it
    BRANCHES = "{value} has {readers} readers"
    GRAPH_OUTPUT = "{value} is an output of the graph"
    GRAPH_INPUT = "{value} is an input of the graph"
    NO_READER = "nothing reads {value}"
    NO_RULE = "{op_type} lets no affine pass in this direction"
    OTHER_SCOPE = "{value} is used across the border of a subgraph"
    SHADOWED = "a body has a value of its own by the name of {value}"
    PATHS_MEET = "two paths of the walk meet at {op_type}"
    TOO_FAR = "the walk is too long; it ends at {op_type}"
    KEPT_BY_NAME = "named by --keep"
    FUSED_BY_RUNTIME = "it is part of a {pattern} that runtimes compute as one operator"
    GROWTH = "would make the model {size} bytes larger, {together} with other folds; {left} are allowed"
    OUT_OF_TIME = "there was no time left for it"
    NO_GAIN = "would cost as many nodes as it removes"

    NO_CONV_BESIDE = "no Conv that reads {value} is added to it"

    # what it is made of
    NOT_INLINED = "functions are not written out where they are called: {detail}"
    NOT_CONSTANT = "{value} is computed from an input of the model"
    TOO_LARGE = "{value} is a constant that the model does not store, with more than {most} elements"
    OVERRIDABLE = "{value} is an initializer that a caller may override (it is also a graph input)"
    TRAINING_MODE = "runs in training mode: calibrate it first (bnfold calibrate)"
    EXTRA_OUTPUTS = "its running statistics are outputs: it is a training-mode node"
    SPATIAL_ZERO = "spatial=0: it normalises every position by itself"
    VARIANCE_NOT_POSITIVE = "variance + epsilon is not positive in {count} of {channels} channels"
    NOT_FINITE = "{value} holds NaN or infinity"
    WRONG_SIZE = "{value} has {size} elements where {expected} are needed"
    SHAPE_UNKNOWN = "the shape of {value} is not known"
    EXPANDS = "it broadcasts {value} to a larger shape"
    ATTRIBUTE_UNKNOWN = "attribute {attribute} of {op_type} is not known here"
    NOT_FLOAT = "{value} is not of a floating-point type"

    # the operator it reached
    SHIFT_MEETS_PADDING = "zero padding would not receive the shift"
    SHIFT_NOT_ZERO = "{op_type} passes a scale but no shift"
    SCALE_MEETS_SUM = "the other operands of {op_type} would not receive the scale"
    SCALE_NOT_POSITIVE = "{count} of {channels} channels have a scale that is not positive"
    WRONG_AXIS = "the affine varies along axes {axes}, {op_type} takes {expected}"
    NOT_UNIFORM = "{op_type} takes one number for all channels"
    OVERFLOW = "a folded weight of {op_type} would not be finite in its type"
    UNDERFLOW = "channel {channel} of {op_type}, then {largest} at the most, has numbers below {limit}: {effect}"
    QUANTIZED = "{op_type} is quantized {detail}"
    MALFORMED = "{op_type} does not fit its inputs: {detail}"
    UNSUPPORTED = "this form of {op_type} is not supported: {detail}"


@dataclass(frozen=True)
class Refusal:
    """One way that was tried, and where and why it ended.

    Attributes:
        reason: Why.
        facts: What the reason's text asks for.
        node: Where.
        towards: Where the way led: "up", "down", "beside" it, or nowhere, where the node itself is the obstacle.
    """

    reason: Reason
    facts: dict[str, object] = field(default_factory=dict)
    node: str = ""
    towards: str = field(default="", compare=False)

    def __str__(self) -> str:
        """A sentence, in which names are escaped."""
        return escape.line(self.text)

    @property
    def text(self) -> str:
        """The sentence with names as they are."""
        text = self.reason.value.format(**self.facts)
        return f"{text} ({self.node})" if self.node else text


class Refused(Exception):
    """Raised inside a rule to say no. Only folding/ catches it."""

    def __init__(self, reason: Reason, **facts: object) -> None:
        super().__init__(reason, facts)
        self.reason = reason
        self.facts = facts
        self.towards = ""

    def __str__(self) -> str:
        return str(Refusal(self.reason, self.facts))
