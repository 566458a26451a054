"""Values without elements: numpy warns of their means, which nobody has asked for."""

import onnx
import onnx.parser

from bnfold import fold, verify

HEADER = """<ir_version: 8, opset_import: ["": 17]> net (float[N, 3, 0, 4] x) => (float[N, 3, 0, 4] y)
    <float[3] g = {1, 2, 3}, float[3] b = {4, 5, 6}, float[3] m = {7, 8, 9}, float[3] v = {1, 2, 3}>"""


def test_no_warning_comes_through():
    """Where warnings are errors, as they are here, one would stand in the place of what is known."""
    body = "n = InstanceNormalization (x, g, b) y = BatchNormalization (n, g, b, m, v)"
    before = onnx.parser.parse_model(f"{HEADER} {{ {body} }}")
    told = str(verify(before, fold(before)))
    assert "has no elements" in told
    assert "Warning" not in told


def test_what_has_no_elements_at_any_size_that_was_tried_is_not_equal():
    """Behind the end of a Slice, say, that no input reaches; what has none by what the model states owes nothing."""
    text = """<ir_version: 8, opset_import: ["": 17]> net (float[N, 3, LENGTH] x) => (float[N, 3, M] y)
        <int64[1] from = {90000}, int64[1] end = {9223372036854775807}, int64[1] axis = {2}, float[1] two = {2}>
        { a = Slice (x, from, end, axis) PART y = Concat <axis = 2> (x, PREFIXb) }"""
    parts = ("p_b = Mul (a, two)", "p_"), ("q_b = Add (a, a)", "q_")
    for length, says in (("L", "nothing that was tried has any elements in 'a'"), ("8", "equivalent: 1 of 1")):
        models = [
            onnx.parser.parse_model(text.replace("LENGTH", length).replace("PART", part).replace("PREFIX", prefix))
            for part, prefix in parts
        ]
        assert says in "\n".join([str(found := verify(*models, run=False)), *found.reasons])
