"""Why a node stays, in a sentence."""

from pathlib import Path

import pytest
from helpers import model_of

from bnfold.folding import FoldOptions, plan
from bnfold.folding.stays import KINDS, kind_of, sentence
from bnfold.model_io import load

PAGE = Path(__file__).parents[2] / "docs" / "what-stays.md"
X = "float[2, 4, 5, 5] x"
Y = "float[2, 4, 5, 5] y"


def entry_of(body: str, inputs: str = X, output: str = Y, **options):
    text = f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({output}) {{ {body} }}'
    entries = plan(load(model_of(text)), FoldOptions(**options)).entries
    return next(entry for entry in entries if entry.is_batchnorm)


CASES = {
    "not calibrated": ("y, m, v = BatchNormalization <training_mode = 1> (x, {bn: 4})", {}),
    "in your hand": ("c = Conv (x, {w: 4, 4, 1, 1}) [bn] y = BatchNormalization (c, {bn: 4})", {"keep": ("bn",)}),
    "damaged": ("y = BatchNormalization (x, {bn: 3})", {}),
    "data-dependent": (
        "y = BatchNormalization (x, {s: 4}, b, {m: 4}, {v: 4 positive})",
        {"inputs": f"{X}, float[4] b"},
    ),
    "precision": (
        "c = Conv (x, {w: 4, 4, 1, 1 float16}) y = BatchNormalization (c, {bn: 4 float16 huge})",
        {"inputs": "float16[2, 4, 5, 5] x", "output": "float16[2, 4, 5, 5] y"},
    ),
    "quantized data": (
        "a = QuantizeLinear (x, {step: 1 positive}, {point: 1 zero int8}) b = DequantizeLinear (a, step, point) "
        "c = BatchNormalization (b, {bn: 4}) d = QuantizeLinear (c, step, point) y = DequantizeLinear (d, step, point)",
        {},
    ),
    "no bias": (
        "m = MatMul (x, {w: 4, 6}) t = Transpose <perm = [0, 2, 1]> (m) b = BatchNormalization (t, {bn: 6})"
        "y = Sigmoid (b)",
        {"inputs": "float[2, 3, 4] x", "output": "float[2, 6, 3] y"},
    ),
    "before padding": (
        "r = Relu (x) b = BatchNormalization (r, {bn: 4}) y = Conv <pads = [1, 1, 1, 1]> (b, {w: 4, 4, 3, 3})",
        {},
    ),
    "before a sum": (
        "r = Sigmoid (x) b = BatchNormalization (r, {bn: 4}) s = Add (b, x) y = Conv (s, {w: 4, 4, 1, 1})",
        {},
    ),
    "pre-activation": (
        "a = Relu (x) b = BatchNormalization (a, {bn: 4}) r = Relu (b) c = Conv (r, {w: 4, 4, 1, 1}) y = Add (c, a)",
        {},
    ),
    "between functions": ("s = Sigmoid (x) b = BatchNormalization (s, {bn: 4}) y = Sigmoid (b)", {}),
    "at the input": ("b = BatchNormalization (x, {bn: 4}) y = Conv <pads = [1, 1, 1, 1]> (b, {w: 4, 4, 3, 3})", {}),
    "at the output": ("s = Sigmoid (x) y = BatchNormalization (s, {bn: 4})", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_kinds(name):
    """Each is told from the others by what stands above and below, and says so in a sentence."""
    body, options = CASES[name]
    entry = entry_of(body, **options)
    kind = kind_of(entry)
    assert kind is not None
    assert kind.name == name
    assert sentence(kind, [entry]).startswith(f"{name}: ")


def test_the_page_has_them_all():
    """In the order in which they are looked for."""
    told = [line.removeprefix("### ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:4] == "### "]
    assert told == [kind.name for kind in KINDS] == list(CASES)


def test_a_node_that_goes_is_none_of_them():
    """Nor one of which a side is not understood."""
    assert kind_of(entry_of("c = Conv (x, {w: 4, 4, 1, 1}) y = BatchNormalization (c, {bn: 4})")) is None


def test_what_many_have_in_common():
    """What differs is told as an example."""
    body = CASES["pre-activation"][0]
    entries = [entry_of(body), entry_of(body.replace("y = Add (c, a)", "d = Add (c, a) y = Add (d, a)"))]
    kind = kind_of(entries[0])
    assert kind is not None
    assert "above, a has 2 readers" in sentence(kind, entries[:1])
    assert "above, e.g. a has 2 readers; below, Relu passes a scale but no shift" in sentence(kind, entries)
