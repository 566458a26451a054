"""What only hands on constants goes from a model that is folded: exporters write a node for each of them.

A Constant node becomes an initializer of the same name and bytes, and what reads an Identity of one reads
it. Runtimes do the same when they load a model. In bodies and functions they stay, and below IR version 4, where an
initializer would be an input as well.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from bnfold.folding.keep import kept_that_changes
from bnfold.graph import Graph, Op
from bnfold.ops import Detach
from bnfold.reasons import Refused

_INITIALIZERS_ARE_NO_INPUTS_FROM_IR = 4
_NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def store_constants(graph: Graph) -> None:
    """To be called when all folds are done: the index knows of no change of constants."""
    if graph.model.proto.ir_version < _INITIALIZERS_ARE_NO_INPUTS_FROM_IR:
        return
    for op in list(graph.main.live_ops()):
        if not _hands_on(graph, op):
            continue
        if op.type == "Identity":
            _drop(graph, op)
        elif (tensor := _tensor(op)) is not None:
            graph.as_initializer(op, tensor)


def _hands_on(graph: Graph, op: Op) -> bool:
    """Whether an op only hands on a constant, under names that no body has: initializers are there from the start."""
    if op.type not in ("Constant", "Identity") or op.is_kept or op.shadowed or len(op.outputs) != 1:
        return False
    made = op.outputs[0]
    if made is None or made.is_output:
        return False
    return not any(graph.is_in_a_body(value.name) for value in (*op.inputs, made) if value is not None)


def _tensor(constant: Op) -> TensorProto | None:
    """What a Constant node holds; None where that is sparse, or not valid."""
    attributes = constant.node.attribute
    if len(attributes) != 1:
        return None
    held: AttributeProto = attributes[0]
    if held.name == "value" and held.type == AttributeProto.TENSOR and not held.ref_attr_name:  # nearly all
        return held.t
    with suppress(Refused):
        tensor = constant.attribute("value")
        if isinstance(tensor, TensorProto):
            return tensor
        for name, dtype in _NUMBERS.items():
            if (value := constant.attribute(name)) is not None:
                return onnx.numpy_helper.from_array(np.asarray(value, dtype))
    return None


def _drop(graph: Graph, identity: Op) -> None:
    """Lets the readers of an Identity read the initializer before it."""
    source, result = identity.input(0), identity.output
    if source is None or source.tensor is None or graph.constant(source) is None:  # a caller may give another
        return
    is_noted = bool(graph.model.proto.graph.quantization_annotation)
    if is_noted or kept_that_changes([Detach(identity, 0, keeps_name=False)]) is not None:
        return
    graph.move_readers(result, source)
    graph.remove(identity)
