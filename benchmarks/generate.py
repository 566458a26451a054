"""Models to measure on, made of nothing but random numbers: no framework, no download.

`generate.py resnet50 OUT`, `generate.py inline OUT [MEGABYTES]` and `generate.py KIND OUT [COUNT]` make one; the kinds
are `nodes`, `joined`, `joined_conv`, `readers` and `residual`. `generate.py count MODEL…` prints how many
BatchNormalizations each model holds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

_OPSET = 17
_CHANNELS = 1024  # of the inline model; its weights are the larger 3×3 convolutions of a big detector


class Network:
    """A graph that grows layer by layer, each reading the one before."""

    def __init__(self, shape: list[int | str]) -> None:
        self.last = "input"
        self._rng = np.random.default_rng(0)
        self._graph = onnx.GraphProto(name="generated")
        self._graph.input.append(helper.make_tensor_value_info("input", 1, shape))

    def add(
        self, op_type: str, *parameters: npt.NDArray[np.float32], data: tuple[str, ...] = (), **attributes: Any
    ) -> str:
        """Adds a node that reads ``data`` (by default the last value) and its own parameters."""
        name = f"{op_type.lower()}{len(self._graph.node)}"
        names = [f"{name}.{index}" for index in range(len(parameters))]
        for parameter, tensor in zip(parameters, names, strict=True):
            self._graph.initializer.append(numpy_helper.from_array(parameter, tensor))
        node = helper.make_node(op_type, [*(data or (self.last,)), *names], [f"{name}.out"], name, **attributes)
        self._graph.node.append(node)
        self.last = node.output[0]
        return self.last

    def conv_bn(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> str:
        """A Conv without bias and the BatchNormalization that follows it."""
        deviation = np.float32((2 / (inputs * kernel * kernel)) ** 0.5)
        weight = self._rng.standard_normal((outputs, inputs, kernel, kernel), np.float32) * deviation
        self.add("Conv", weight, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4)
        gamma, var = (self._rng.uniform(0.5, 1.5, outputs).astype(np.float32) for _ in range(2))
        beta, mean = (self._rng.normal(0, 0.1, outputs).astype(np.float32) for _ in range(2))
        return self.add("BatchNormalization", gamma, beta, mean, var)

    def save(self, path: str, shape: list[int | str]) -> None:
        """Writes the model, inline. The last value, of this shape, is its output."""
        self._graph.output.append(helper.make_tensor_value_info(self.last, 1, shape))
        imports = [helper.make_opsetid("", _OPSET)]
        onnx.save(helper.make_model(self._graph, opset_imports=imports, ir_version=8), path)


def resnet50(path: str) -> None:
    """ResNet-50 (He et al. 2015): 53 Conv and BatchNormalization, 25.6 million weights, 102 MB."""
    net = Network(["N", 3, 224, 224])
    net.conv_bn(3, 64, 7, 2)
    net.add("Relu")
    net.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(blocks):
            channels = _bottleneck(net, channels, width, stride=2 if stage and not block else 1)
    net.add("GlobalAveragePool")
    net.add("Flatten")
    net.add("Gemm", np.zeros((1000, channels), np.float32), np.zeros(1000, np.float32), transB=1)
    net.save(path, ["N", 1000])


def _bottleneck(net: Network, channels: int, width: int, stride: int) -> int:
    beside = start = net.last
    if channels != 4 * width:
        beside = net.conv_bn(channels, 4 * width, 1, stride)
        net.last = start
    net.conv_bn(channels, width, 1)
    net.add("Relu")
    net.conv_bn(width, width, 3, stride)
    net.add("Relu")
    net.add("Add", data=(net.conv_bn(width, 4 * width, 1), beside))
    net.add("Relu")
    return 4 * width


def inline(path: str, megabytes: int = 1500) -> None:
    """A chain of Conv, BatchNormalization and Relu with weights of 38 MB each."""
    net = Network(["N", _CHANNELS, 14, 14])
    for _ in range(max(1, round(megabytes * 1e6 / (9 * _CHANNELS**2 * 4)))):
        net.conv_bn(_CHANNELS, _CHANNELS, 3)
        net.add("Relu")
    net.save(path, ["N", _CHANNELS, 14, 14])


def nodes(path: str, count: int = 100_000) -> None:
    """A chain of small nodes; in every hundred a Conv and a BatchNormalization."""
    net = Network(["N", 4, 8, 8])
    for _ in range(count // 100):
        net.conv_bn(4, 4, 1)
        for _ in range(49):
            net.add("Sigmoid")
            net.add("Relu")
    net.save(path, ["N", 4, 8, 8])


def joined(path: str, count: int = 1000, *, conv: bool = False) -> None:
    """BatchNormalizations that can go nowhere up, before one Concat; nor down, unless a Conv follows."""
    net = Network(["N", 2, 4, 4])
    parts = []
    for number in range(count):
        net.last = net.add("Tanh", data=("input",))
        parts.append(net.add("BatchNormalization", *(np.full(2, 0.5 + number, np.float32) for _ in range(4))))
    net.add("Concat", data=tuple(parts), axis=1)
    net.add(*(("Conv", np.ones((2, 2 * count, 1, 1), np.float32)) if conv else ("Tanh",)))
    net.save(path, ["N", "C", 4, 4])


def joined_conv(path: str, count: int = 1000) -> None:
    """The same with a Conv that takes them all."""
    joined(path, count, conv=True)


def readers(path: str, count: int = 100_000) -> None:
    """One value that so many nodes read, behind a Conv and a BatchNormalization."""
    net = Network(["N", 4, 4, 4])
    shared = net.conv_bn(4, 4, 1)
    parts = [net.add("Relu", data=(shared,)) for _ in range(count)]
    net.add("Sum", data=tuple(parts))
    net.save(path, ["N", 4, 4, 4])


def residual(path: str, count: int = 5000) -> None:
    """Blocks of Conv, BatchNormalization, Relu and an Add, one behind the other."""
    net = Network(["N", 4, 4, 4])
    for _ in range(count):
        start = net.last
        net.conv_bn(4, 4, 1)
        net.add("Add", data=(net.add("Relu"), start))
    net.save(path, ["N", 4, 4, 4])


def count_batchnorms(path: str) -> int:
    """How many there are, subgraphs and functions included. Data files are not read."""
    model = onnx.load(path, load_external_data=False)
    return sum(_in_nodes(owner.node) for owner in (model.graph, *model.functions))


def _in_nodes(nodes: Iterable[onnx.NodeProto]) -> int:
    total = 0
    for node in nodes:
        total += node.op_type == "BatchNormalization"
        for attribute in node.attribute:
            total += sum(_in_nodes(graph.node) for graph in (attribute.g, *attribute.graphs))
    return total


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    if kind == "count":
        print(*(count_batchnorms(path) for path in arguments))
    else:
        makers = (resnet50, inline, nodes, joined, joined_conv, readers, residual)
        made = {maker.__name__: maker for maker in makers}[kind]
        made(arguments[0], *map(int, arguments[1:]))
