"""Models that ONNX's shape inference may have in this process.

Some operators (GatherND, EyeLike, many of ``ai.onnx.ml``) make it read memory that is not there, where they get what
they do not expect. Others make it list the elements of whatever has rank 1, which takes for ever if there are 2^40.
So all operators have to be known here, and what those others read has to be a list of sizes or of a higher rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from bnfold.graph.facts import FEW_SIZES
from bnfold.model_io.tensors import STANDARD_DOMAINS, bodies

FOLLOWED = frozenset(
    {"Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Add", "Sub", "Mul", "Div", "Cast", "Identity", "Expand"}
)
"""The operators through which inference follows lists of sizes."""

LISTING = frozenset({"Add", "Cast", "Concat", "Gather", "Mul", "Size", "Slice", "Squeeze", "Sub", "Unsqueeze"})
"""Those that list the elements of what they read."""

KNOWN = LISTING | {
    *("Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "LayerNormalization", "Gemm", "MatMul"),
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softmax", "Erf"),
    *("Div", "Pow", "Sqrt", "Exp", "Log", "Neg", "Abs", "Min", "Max", "Where", "Equal", "Identity", "Dropout", "Sin"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Pad", "Resize", "ReduceMean", "ReduceSum"),
    *("Cos", "CumSum", "Floor", "Ceil", "Reciprocal", "ReduceMax", "ReduceL2", "Gelu", "Softplus", "DepthToSpace"),
    *("QuantizeLinear", "DequantizeLinear", "LSTM", "GRU", "RNN", "LogSoftmax", "LRN", "Selu", "Mish", "Round", "Sign"),
    *("Not", "And", "Or", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "TopK", "Tile"),
    *("SplitToSequence", "SequenceAt"),
    *("Flatten", "Reshape", "Transpose", "Expand", "Split", "Shape", "Constant", "ConstantOfShape", "CastLike"),
}
"""Operators at which inference has not failed, whatever they get but for an attribute."""

_READS_ATTRIBUTES = ("Split", "LayerNormalization", "Constant")

_LISTS = (FOLLOWED - {"Expand"}) | {
    *("Reshape", "Equal", "Where", "CastLike", "Ceil", "Floor", "CumSum", "Sqrt", "Pow", "Neg", "Abs", "Min", "Max"),
    *("Sin", "Cos", "Exp", "Log", "Reciprocal", "Clip"),
}
"""Those that make no longer lists out of lists than all these together."""

_BROADCASTING = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Where", "Equal", "Concat")
_RANKS = {"Gemm": 2, "Flatten": 2, "Shape": 1, "Size": 0}
_LOSES_AXES = ("Squeeze", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2")
_LONGEST = 1 << 20  # entries of a list
_FARTHEST = 64  # axis
_MOST_AXES = 1 << 10  # that a value gets by an Expand: before opset 13 inference counts one for each entry of a list
_MANY = 10_000  # nodes, or values of one: to look at so many takes longer than to copy the process
_INTEGERS = (TensorProto.INT32, TensorProto.INT64)


_Entries = tuple[int, int]  # at least, and at most


def is_harmless(model: ModelProto) -> bool:
    """Whether inference of a model comes to an end, and not to that of the process."""
    if model.functions or model.graph.sparse_initializer or len(model.graph.node) > _MANY:
        return False
    bounds = _Bounds(model.graph)
    return all(node.domain in STANDARD_DOMAINS and bounds.go_on(node) for node in model.graph.node)


class _Bounds:
    """Of values the least ranks; of lists of sizes, and whatever else has few elements, the least and most lengths."""

    def __init__(self, graph: GraphProto) -> None:
        self._ranks: dict[str, int] = {}
        self._lists: dict[str, _Entries] = {}
        self._lengths: dict[str, int] = {}  # of shapes of lists, the most that stands in them
        for tensor in graph.initializer:
            self._take([tensor.name], len(tensor.dims), _entries(tensor))
        for entry in graph.input:
            dims = entry.type.tensor_type.shape.dim
            most = max((dim.dim_value if dim.HasField("dim_value") else _LONGEST for dim in dims), default=1)
            is_short = entry.type.tensor_type.HasField("shape") and len(dims) < 2 and most <= _LONGEST
            self._take([entry.name], len(dims), (0, most) if is_short else None)

    def go_on(self, node: NodeProto) -> bool:
        """Whether a node does no harm."""
        kind = node.op_type
        if kind == "Expand" and any(self._lists.get(name, (0, _LONGEST))[1] > _MOST_AXES for name in node.input[1:2]):
            return False
        if len(node.input) + len(node.output) > _MANY:  # of what it makes nothing is said, which is on the safe side
            return kind in KNOWN and kind not in LISTING and kind not in _READS_ATTRIBUTES
        inputs = list(filter(None, node.input))
        if kind not in KNOWN or (kind in _READS_ATTRIBUTES and any(_does_harm(a, node) for a in node.attribute)):
            return False
        made = self._list(node, kind, inputs)
        if made is None and kind in LISTING and self._may_list(kind, inputs):
            return False
        if kind == "Shape" and inputs and inputs[0] in self._lists:
            self._lengths |= dict.fromkeys(node.output, self._lists[inputs[0]][1])
        self._take(node.output, self._rank(node, kind, inputs), made)
        return made is None or made[1] <= _LONGEST

    def _may_list(self, kind: str, inputs: Sequence[str]) -> bool:
        ranks = [self._ranks.get(name, 0) for name in inputs if name not in self._lists]
        return (max if kind == "Concat" else min)(ranks, default=2) < 2  # those of a Concat are all the same

    def _take(self, names: Iterable[str], rank: int, made: _Entries | None) -> None:
        self._ranks |= dict.fromkeys(names, rank)
        if made is not None:
            self._lists |= dict.fromkeys(names, made)

    def _list(self, node: NodeProto, kind: str, inputs: Sequence[str]) -> _Entries | None:
        """How many entries there are in a list that is made; None if it is none. All lists have rank 0 or 1."""
        if kind == "Constant":
            return next((_entries(a.t) if a.HasField("t") else (len(a.ints),) * 2 for a in node.attribute), None)
        if kind == "Shape" and inputs:
            return 0 if node.attribute else self._ranks.get(inputs[0], 0), FEW_SIZES
        if kind == "ConstantOfShape":
            return next(((0, self._lengths[name]) for name in inputs if name in self._lengths), None)
        if kind not in _LISTS or not inputs or not self._lists.keys() >= set(inputs):
            return None
        first, last = self._lists[inputs[0]], self._lists[inputs[-1]]
        least, most = zip(*[self._lists[name] for name in inputs], strict=True)
        match kind:
            case "Concat":
                return sum(least), sum(most)
            case "Cast" | "Identity":
                return first
            case "Gather":
                return last
            case "Unsqueeze":
                return (1, 1) if first[1] < 2 else None
            case "Reshape":
                return (0, first[1]) if last[1] < 2 else None
        return 0, max(most)

    def _rank(self, node: NodeProto, kind: str, inputs: Sequence[str]) -> int:
        """The rank that what a node makes has at least."""
        ranks = [self._ranks.get(name, 0) for name in inputs]
        most = max(ranks, default=0)
        if kind in _RANKS:
            return _RANKS[kind]
        if kind == "Constant":
            return max((len(a.t.dims) for a in node.attribute), default=0)
        if kind in _BROADCASTING:
            return most
        if kind in ("Reshape", "ConstantOfShape"):
            return self._lists.get(inputs[-1], (0, 0))[0] if inputs else 0
        if kind == "Expand":
            return max([most, *(self._lists.get(name, (0, 0))[0] for name in inputs[1:])])
        if kind == "MatMul":
            return most - (min(ranks, default=0) < 2)
        if kind == "Gather":
            return sum(ranks) - 1
        if kind in _LOSES_AXES:
            lost = [len(a.ints) for a in node.attribute if a.name == "axes"]
            lost += [self._lists.get(name, (0, most))[1] for name in inputs[1:]]
            return ranks[0] - max(lost) if ranks and lost else 0
        permuted = [len(a.ints) for a in node.attribute] if kind == "Transpose" else []
        return min([*ranks[:1], *permuted], default=0)


def _entries(tensor: TensorProto) -> _Entries | None:
    return (tensor.dims[0],) * 2 if len(tensor.dims) == 1 else None if tensor.dims else (0, 1)


def _does_harm(attribute: AttributeProto, node: NodeProto) -> bool:
    """Whether inference goes beyond the last axis or output because of it, or a Constant is longer than stored."""
    match attribute.name:
        case "axis":
            return abs(attribute.i) > _FARTHEST
        case "num_outputs":
            return attribute.i != len(node.output)
    return attribute.name == "sparse_value"


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and its subgraphs, in the order in which the index numbers their scopes."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def sizes_are_few(graph: GraphProto) -> bool:
    """Whether no list that data_prop follows gets long: n Concats of one with itself make 2^n entries."""
    longest: dict[str, int] = {}
    for part in graphs(graph):
        lists = (tensor for tensor in part.initializer if tensor.data_type in _INTEGERS and len(tensor.dims) == 1)
        longest |= {tensor.name: tensor.dims[0] for tensor in lists}
        for node in part.node:
            if node.op_type not in FOLLOWED:
                continue
            lengths = [longest.get(name, FEW_SIZES) for name in node.input]
            length = sum(lengths) if node.op_type == "Concat" else max(lengths, default=0)
            if length > _LONGEST:
                return False
            longest |= dict.fromkeys(node.output, length)
    return True
