"""Through which inputs data comes in: an affine at a weight, a bias or a setting is none of the data."""

import onnx
import pytest

from bnfold.ops import RULES

ALL = {"Add", "Concat", "Div", "Einsum", "MatMul", "Mul", "Sub", "Sum"}
"""Operators of whose inputs each may be data."""
SOME = {"Gemm": (0, 1)}
"""Operators of which several inputs may be data, and others may not."""
QUANTIZED = {"ConvInteger", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger", "QuantizeLinear"}
"""Their rule lets nothing pass, whatever it comes in through."""
INPUTS = {schema.name: schema.max_input for schema in onnx.defs.get_all_schemas()}
TOLD = sorted(
    name
    for name, rule in RULES.items()
    if INPUTS.get(name, 1) > 1 and (rule.absorb_input or rule.sink) and name not in ALL | QUANTIZED
)


@pytest.mark.parametrize("op_type", TOLD)
def test_an_operator_with_further_inputs_says_which_are_data(op_type):
    """The first, unless it stands above."""
    assert tuple(RULES[op_type].data_inputs or ()) == SOME.get(op_type, (0,))


def test_where_all_inputs_are_data_none_is_left_out():
    """Not even one that is a constant most of the time."""
    assert {name for name in ALL if RULES[name].data_inputs is None} == ALL
