"""Models to compare: small networks with BatchNormalizations, and models as text that are rewritten."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification import Verdict, verify
from bnfold.verification.float64.evaluate import Evaluator
from bnfold.verification.float64.how import How
from bnfold.verification.regions.regions import Region
from bnfold.verification.regions.side import Side, active_operators

Array = npt.NDArray[Any]
TYPES = ("float16", "float32", "float64")
STATISTICS = {"usual": 1.0, "mean 1e4 sigma": 1e4}


# --- networks of every kind that folds, in every type, well and badly conditioned ------------------------------


@dataclass
class Net:
    """A network in the making: ``add`` appends an operator and returns the name of its output."""

    dtype: str
    seed: int
    mean: float
    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def weight(self, *shape: int, low: float | None = None) -> str:
        values = self.random.standard_normal(shape) if low is None else self.random.uniform(low, low + 1, shape)
        if low is None and len(shape) > 1:
            values /= np.sqrt(np.prod(shape[1:]))
        return self.tensor(values)

    def tensor(self, values: Array) -> str:
        name = f"w{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(values).astype(self.dtype), name))
        return name

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        output = f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], f"the_{output}", **attributes))
        return output

    def bn(self, x: str, channels: int, **attributes: Any) -> str:
        scale, shift = self.weight(channels, low=0.5), self.weight(channels)
        variance = self.random.uniform(0.5, 1.5, channels) * 1e-2
        mean = self.random.standard_normal(channels) * np.sqrt(variance) * self.mean
        return self.add("BatchNormalization", x, scale, shift, self.tensor(mean), self.tensor(variance), **attributes)

    def model(self, shape: tuple[int | str, ...], output: str) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_tensor_value_info(output, kind, None)],
            self.tensors,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, ir_version=8, opset_imports=opsets)


def conv(net: Net) -> onnx.ModelProto:
    c = net.add("Conv", "x", net.weight(6, 4, 3, 3), net.weight(6), pads=[1, 1, 1, 1])
    return net.model(("N", 4, 9, 11), net.add("Relu", net.bn(c, 6)))


def conv_without_bias(net: Net) -> onnx.ModelProto:
    c = net.add("Conv", "x", net.weight(5, 4, 3, 3), strides=[2, 2])
    return net.model((1, 4, 9, 11), net.bn(c, 5))


def grouped(net: Net) -> onnx.ModelProto:
    c = net.add("Conv", "x", net.weight(8, 2, 3, 3), group=2, auto_pad="SAME_UPPER", strides=[2, 2])
    return net.model((1, 4, 10, 11), net.bn(c, 8))


def depthwise(net: Net) -> onnx.ModelProto:
    c = net.add("Conv", "x", net.weight(6, 1, 3, 3), group=6, dilations=[2, 2])
    d = net.add("Conv", net.add("Relu", net.bn(c, 6)), net.weight(7, 6, 1, 1))
    return net.model((1, 6, 10, 11), net.bn(d, 7))


def one_dimension(net: Net) -> onnx.ModelProto:
    return net.model((2, 3, 20), net.bn(net.add("Conv", "x", net.weight(4, 3, 5), net.weight(4)), 4))


def three_dimensions(net: Net) -> onnx.ModelProto:
    return net.model((1, 2, 5, 6, 7), net.bn(net.add("Conv", "x", net.weight(4, 2, 3, 3, 3)), 4))


def transposed(net: Net) -> onnx.ModelProto:
    c = net.add("ConvTranspose", "x", net.weight(4, 3, 3, 3), group=2, strides=[2, 2], output_padding=[1, 1])
    return net.model((1, 4, 5, 6), net.bn(c, 6))


def gemm(net: Net) -> onnx.ModelProto:
    g = net.add("Gemm", "x", net.weight(6, 5), net.weight(6), transB=1, alpha=0.5, beta=2.0)
    return net.model(("N", 5), net.bn(g, 6))


def matmul(net: Net) -> onnx.ModelProto:
    m = net.add("Add", net.add("MatMul", "x", net.weight(5, 6)), net.weight(6))
    return net.model((3, 5), net.bn(m, 6))


def before_conv(net: Net) -> onnx.ModelProto:
    c = net.add("Conv", net.bn("x", 4), net.weight(6, 4, 3, 3))
    return net.model((1, 4, 9, 11), net.add("Relu", c))


def residual(net: Net) -> onnx.ModelProto:
    a = net.bn(net.add("Conv", "x", net.weight(4, 4, 3, 3), pads=[1, 1, 1, 1]), 4)
    b = net.bn(net.add("Conv", "x", net.weight(4, 4, 1, 1)), 4)
    return net.model((1, 4, 8, 9), net.add("Relu", net.bn(net.add("Add", a, b), 4)))


def shared_weight(net: Net) -> onnx.ModelProto:
    weight = net.weight(4, 4, 3, 3)
    a = net.bn(net.add("Conv", "x", weight, pads=[1, 1, 1, 1]), 4)
    return net.model((1, 4, 8, 9), net.bn(net.add("Conv", net.add("Relu", a), weight), 4))


def decomposed(net: Net) -> onnx.ModelProto:
    c = net.add("Conv", "x", net.weight(5, 4, 3, 3))
    m = net.add("Mul", net.add("Sub", c, net.weight(5, 1, 1)), net.weight(5, 1, 1, low=0.5))
    return net.model((1, 4, 9, 10), net.add("Add", m, net.weight(1, 5, 1, 1)))


def in_a_row(net: Net) -> onnx.ModelProto:
    p = net.add("Conv", "x", net.weight(4, 4, 1, 1))
    c = net.add("Conv", p, net.weight(6, 4, 3, 3), net.weight(6), pads=[1, 1, 1, 1])
    return net.model((1, 4, 8, 9), net.add("Relu", c))


def mean_beside(net: Net) -> onnx.ModelProto:
    a = net.bn(net.add("Conv", "x", net.weight(4, 4, 3, 3), net.weight(4), pads=[1, 1, 1, 1]), 4)
    window: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    b = net.bn(net.add("AveragePool", "x", **window), 4)
    return net.model((1, 4, 8, 9), net.add("Relu", net.add("Add", a, b)))


def low_rank(net: Net) -> onnx.ModelProto:
    m = net.add("Add", net.add("MatMul", "x", net.weight(5, 6)), net.weight(6))
    lora = net.add("MatMul", net.add("MatMul", "x", net.weight(5, 2)), net.weight(2, 6))
    scaled = net.add("Mul", lora, net.tensor(np.asarray(0.5)))
    return net.model((2, 3, 5), net.add("Relu", net.add("Add", m, scaled)))


KINDS: dict[str, Callable[[Net], onnx.ModelProto]] = {
    function.__name__: function
    for function in (
        *(conv, conv_without_bias, grouped, depthwise, one_dimension, three_dimensions, transposed, gemm, matmul),
        *(before_conv, residual, shared_weight, decomposed),
        *(in_a_row, mean_beside, low_rank),
    )
}


def nets(kind: str, seeds: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    """A kind of network in every type and condition, with what it is."""
    for dtype, (condition, mean), seed in itertools.product(TYPES, STATISTICS.items(), range(seeds)):
        yield f"{kind}, {dtype}, {condition}, seed {seed}", KINDS[kind](Net(dtype, seed, mean))


# --- a model that is rewritten, once rightly and once wrongly --------------------------------------------------


@dataclass(frozen=True)
class Rewriting:
    """A model with a part that is written in three ways.

    Attributes:
        what: What is rewritten; names the test.
        model: The model as ONNX text. ``@`` stands for the part, and ``~`` begins names that AFTER has others for.
        before: The part as it was.
        wrong: The part so that it computes something else.
        right: The part in another way that computes the same.
        opset: Of ONNX.
        tensors: Initializers, for those of the three that mention them.
    """

    what: str
    model: str
    before: str
    wrong: str
    right: str
    opset: int = 17
    tensors: Mapping[str, Array] = field(default_factory=dict)

    def wrongly(self) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        return self._written(self.before, "a_"), self._written(self.wrong, "b_")

    def rightly(self) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        return self._written(self.before, "a_"), self._written(self.right, "b_")

    def __str__(self) -> str:
        return self.what

    def _written(self, part: str, prefix: str) -> onnx.ModelProto:
        return parsed(self.model.replace("@", part).replace("~", prefix), self.opset, self.tensors)


def assert_told_apart(case: Rewriting) -> None:
    """The regions alone find the difference, and none in the correct twin."""
    assert verify(*case.wrongly(), run=False).verdict is Verdict.DIFFERENT
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


def parsed(body: str, opset: int = 17, tensors: Mapping[str, Array] | None = None) -> onnx.ModelProto:
    """A model from ONNX text, with those of the tensors that it mentions."""
    domains = f'"": {opset}, "com.microsoft": 1, "ai.onnx.ml": 3, "my": 1'
    model = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{domains}]>\n{body}")
    used = {name: array for name, array in (tensors or {}).items() if re.search(rf"\b{name}\b", body)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in used.items())
    return model


def side_of(text: str, *, compares: bool = True) -> Side:
    """A model of text as a side of which nothing is changed, whose comparisons are, or are not, of sizes."""
    graph = Graph(load(parsed(text)))
    ops, inputs = tuple(graph.main.live_ops()), [value.name for value in graph.model.proto.graph.input]
    region = Region(graph.main.values["y"], ops, {graph.main.values[name]: 0 for name in inputs}, ())
    compared = frozenset(op for op in ops if compares and op.type in ("Less", "Equal"))
    return Side(
        Evaluator(graph.model),
        region,
        active_operators(region),
        (),
        (),
        (),
        frozenset(),
        frozenset(),
        compared,
        frozenset(),
        {},
        How(),
    )
