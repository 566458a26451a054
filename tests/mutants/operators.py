"""Random models of one operator, of any version of any schema: made by a number, so that each can be made again.

Types, sizes, values and attributes are of any kind: some fit the operator, most do not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx.defs
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto
from onnx.defs import OpSchema
from onnx.helper import make_node, make_opsetid, make_tensor_type_proto
from onnx.numpy_helper import from_array

_T = TypeVar("_T")
_ML = "ai.onnx.ml"
_SCHEMAS = sorted(
    (schema for schema in onnx.defs.get_all_schemas_with_history() if schema.domain in ("", _ML)),
    key=lambda schema: (schema.domain, schema.name, schema.since_version),
)
_SMALL = (1, 2, 3, 8)
_SIZES: tuple[int | str | None, ...] = (0, 4, -1, -5, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 62), "n", None)
_INTEGERS = (0, 1, 1, 2, 3, -1, -2, -5, 5, 64, 100, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
_FLOATS = (0.0, 1.0, 2.5, -1.0, 1e30, float("nan"))
_WORDS = (b"", b"NOTSET", b"SAME_UPPER", b"VALID", b"linear", b"tanh", b"ij,jk->ik", b"...i->i", b"(((", b"\xff\0")
_ELEMENTS = (1, 1, 1, 1, 7, 7, 6, 9, 10, 11, 8, 3, 16, 0, 22)
_OPSETS = (1, 7, 9, 11, 13, 15, 17, 18, 20, 21, 23)


def operator(number: int) -> bytes:
    """The model of that number: an operator alone."""
    return bytes(_Maker(number).operator().SerializeToString())


def network(number: int) -> bytes:
    """The operator or a function of it, a BatchNormalization and a Conv behind it."""
    return bytes(_Maker(number).network().SerializeToString())


class _Maker:
    """Makes one model, by its number."""

    def __init__(self, number: int) -> None:
        self._rng = random.Random(number)
        self._schema = self._rng.choice(_SCHEMAS)

    def operator(self) -> ModelProto:
        """The operator alone."""
        node, model = self._node(), ModelProto(ir_version=self._rng.choice((8, 9, 10)))
        version = self._schema.since_version
        own = (max(version, 7), 3) if not self._schema.domain else (17, version)
        opset = self._rng.choice(_OPSETS) if self._often(0.3) else own[0]
        model.opset_import.extend([make_opsetid("", opset), make_opsetid(_ML, own[1])])
        model.graph.name = "g"
        model.graph.node.append(node)
        for name in dict.fromkeys(filter(None, node.input)):
            kind = self._type()
            if self._often(0.45):
                model.graph.initializer.append(self._tensor(name))
                kind = make_tensor_type_proto(model.graph.initializer[-1].data_type, model.graph.initializer[-1].dims)
            model.graph.input.add(name=name).type.CopyFrom(kind)
        for name in filter(None, node.output):
            model.graph.output.add(name=name).type.CopyFrom(self._type() if self._often(0.3) else TypeProto())
        return model

    def network(self) -> ModelProto:
        """The operator, or a function of it, and behind it what folds; some inputs are reshaped to what they are."""
        model = self.operator()
        if self._often(0.3):
            self._call(model)
        made = next((entry.name for entry in model.graph.output), "x0")
        stored = {tensor.name for tensor in model.graph.initializer}
        for entry in model.graph.input:
            if entry.name not in stored and self._often(0.6):
                name, entry.name = entry.name, f"{entry.name}.in"
                model.graph.node.insert(0, make_node("Reshape", [entry.name, f"{name}.shape"], [name]))
                model.graph.node.insert(0, make_node("Shape", [entry.name], [f"{name}.shape"]))
        for name in "gbmv":
            model.graph.initializer.append(from_array(np.array([1.5, 2, 0.5, 1], np.float32), name))
        model.graph.initializer.append(from_array(np.ones((4, 4, 1, 1), np.float32), "w"))
        model.graph.node.append(make_node("BatchNormalization", [made, *"gbmv"], ["bn"]))
        model.graph.node.append(make_node("Conv", ["bn", "w"], ["out"]))
        model.graph.output.add(name="out").type.tensor_type.elem_type = TensorProto.FLOAT
        return model

    def _call(self, model: ModelProto) -> None:
        """The node becomes the body of a function, perhaps of another version, that may be called with too little."""
        node = model.graph.node.pop()
        inputs, outputs = [*dict.fromkeys(filter(None, node.input))], [*filter(None, node.output)]
        body = FunctionProto(name="F", domain="own", input=inputs, output=outputs, node=[node])
        body.opset_import.extend(model.opset_import)
        for attribute in body.node[0].attribute:
            if self._often(0.1):
                body.attribute.append(attribute.name)
                attribute.ref_attr_name = attribute.name
        model.functions.append(body)
        model.opset_import.append(make_opsetid("own", 1))
        if self._often(0.6):
            model.opset_import[0].version = self._rng.choice(_OPSETS)
        taken = inputs[: self._rng.choice((1, 99, 99))] + ["x0"] * self._often(0.2)
        model.graph.node.append(make_node("F", taken, outputs[: self._rng.choice((0, 1, 9, 9, 9))], domain="own"))

    def _node(self) -> NodeProto:
        schema = self._schema
        most = min(len(schema.inputs), schema.max_input) + 2 * self._often(0.05)
        least = schema.min_input if self._often(0.9) else 0
        count = self._rng.choice(_SMALL) if schema.max_input > 100 else self._rng.randint(min(least, most), most)
        node = NodeProto(op_type=schema.name, domain=schema.domain)
        node.input.extend(self._rng.choices([f"x{i}", "", "x0"], (86, 5, 9))[0] for i in range(count))
        made = len(schema.outputs) if self._often(0.7) else self._rng.randint(0, 3)
        node.output.extend("" if self._often(0.05) else f"y{i}" for i in range(made))
        for name, attribute in sorted(schema.attributes.items()):
            if self._often(0.9 if attribute.required else 0.5):
                node.attribute.append(self._attribute(name, attribute))
        return node

    def _attribute(self, name: str, wanted: OpSchema.Attribute) -> AttributeProto:
        fitting = wanted.type.value  # type: ignore[attr-defined]  # onnx's stub calls it no enum
        kind: Any = fitting if self._often(0.96) else self._rng.randrange(15)
        one, some = self._rng.choice, self._some
        values: dict[int, Callable[[], dict[str, Any]]] = {
            AttributeProto.FLOAT: lambda: {"f": one(_FLOATS)},
            AttributeProto.INT: lambda: {"i": one(_INTEGERS)},
            AttributeProto.STRING: lambda: {"s": one(_WORDS)},
            AttributeProto.TENSOR: lambda: {"t": self._tensor("")},
            AttributeProto.GRAPH: lambda: {"g": self._body()},
            AttributeProto.FLOATS: lambda: {"floats": some(_FLOATS)},
            AttributeProto.INTS: lambda: {"ints": some(_INTEGERS if self._often(0.4) else (0, 1, 2))},
            AttributeProto.STRINGS: lambda: {"strings": some(_WORDS)},
            AttributeProto.TENSORS: lambda: {"tensors": [self._tensor("")]},
            AttributeProto.TYPE_PROTO: lambda: {"tp": self._type()},
        }
        return AttributeProto(name=name, type=kind, **values.get(kind, dict)())

    def _body(self) -> GraphProto:
        body = GraphProto(name="b", node=[make_node("Identity", [self._rng.choice(("x0", "i0", "nothing"))], ["o0"])])
        for i in range(self._rng.randint(0, 3)):
            body.input.add(name=f"i{i}").type.CopyFrom(self._type())
        for _ in range(self._rng.randint(0, 3)):
            body.output.add(name="o0").type.CopyFrom(self._type() if self._often(0.5) else TypeProto())
        return body

    def _type(self) -> TypeProto:
        match self._rng.choices(("tensor", "sequence", "optional", "map", "sparse", "none"), (85, 5, 4, 2, 2, 2))[0]:
            case "tensor":
                return make_tensor_type_proto(self._rng.choice(_ELEMENTS), self._shape() if self._often(0.9) else None)
            case "sequence":
                return TypeProto(sequence_type=TypeProto.Sequence(elem_type=self._type()))
            case "optional":
                return TypeProto(optional_type=TypeProto.Optional(elem_type=self._type()))
            case "map":
                return TypeProto(map_type=TypeProto.Map(key_type=TensorProto.INT64, value_type=self._type()))
            case "sparse":
                return TypeProto(sparse_tensor_type=TypeProto.SparseTensor(elem_type=TensorProto.FLOAT))
        return TypeProto()

    def _shape(self) -> list[int | str | None]:
        rank = self._rng.choice((0, 1, 1, 2, 2, 3, 4, 4, 5, 8))
        return [self._rng.choice(_SIZES if self._often(0.3) else _SMALL) for _ in range(rank)]

    def _tensor(self, name: str) -> TensorProto:
        """Integers mostly, which may be sizes, axes or indices, in a list."""
        values = np.array(self._some(_INTEGERS), np.float32 if self._often(0.2) else np.int64)
        made = from_array(values.reshape(()) if len(values) == 1 and self._often(0.5) else values, name)
        if self._often(0.05):
            made.dims[:] = self._some(_INTEGERS)[:2]
        if self._often(0.05):
            made.data_type = self._rng.randrange(30)
        return made

    def _some(self, values: Sequence[_T]) -> list[_T]:
        return self._rng.choices(values, k=self._rng.choice((0, 1, 1, 2, 3, 4, 4, 8)))

    def _often(self, chance: float) -> bool:
        return self._rng.random() < chance
