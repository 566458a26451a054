"""The index of a model: what a value is, who makes it, who reads it."""

from bnfold.graph.constants import Constant, Stored
from bnfold.graph.index import Graph
from bnfold.graph.op import Op, Scope, Use, Value
from bnfold.graph.shapes import Shape

__all__ = ["Constant", "Graph", "Op", "Scope", "Shape", "Stored", "Use", "Value"]
