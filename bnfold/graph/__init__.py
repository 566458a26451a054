"""The index of a model: what a value is, who makes it, who reads it."""

from bnfold.graph.arrays import Evaluated, Sparse, Stored, is_float
from bnfold.graph.collector import old_objects_left_alone
from bnfold.graph.constants import cast_type
from bnfold.graph.facts import Constant, Shape
from bnfold.graph.functions import are_bounded, inlined
from bnfold.graph.index import Graph
from bnfold.graph.op import Index, Op, Scope, Use, Value
from bnfold.graph.quantization import Dequantized, Grid, Quantized, is_dequantize, is_quantize

__all__ = [
    "Constant",
    "Dequantized",
    "Evaluated",
    "Graph",
    "Grid",
    "Index",
    "Op",
    "Quantized",
    "Scope",
    "Shape",
    "Sparse",
    "Stored",
    "Use",
    "Value",
    "are_bounded",
    "cast_type",
    "inlined",
    "is_dequantize",
    "is_float",
    "is_quantize",
    "old_objects_left_alone",
]
