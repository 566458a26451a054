"""What runtimes compute as one operator stays in one piece: ONNX Runtime is asked before and after the fold."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers import folded, model_of
from onnx import numpy_helper

from bnfold.folding import FoldOptions, Outcome, plan
from bnfold.model_io import load
from bnfold.reasons import Reason

NUMBERS = {"half": 0.5, "one": 1, "two": 2, "three": 3, "root2": 2**0.5, "inverse_root2": 0.5**0.5, "epsilon": 1e-5}
NUMBERS |= {"cubic": 0.044715, "root_2_pi": 0.7978845608, "scale": 0.35, "alpha": 1.702}

# --- x to y, between two MatMuls -----------------------------------------------------------------------------

GELU = {
    "half-last": "d = Div (x, root2) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)",
    "half-of-x": "d = Div (x, root2) e = Erf (d) a = Add (e, one) h = Mul (x, half) y = Mul (h, a)",
    "swapped": "d = Div (x, root2) e = Erf (d) a = Add (one, e) m = Mul (a, x) y = Mul (half, m)",
}
TANH = {
    "products": """
        x2 = Mul (x, cubic) x3 = Mul (x2, x) a1 = Add (x3, one) k = Mul (x, root_2_pi) r = Mul (k, a1)
        t = Tanh (r) a = Add (t, one) h = Mul (x, half) y = Mul (h, a)
    """,
    "powers": """
        p = Pow (x, three) c = Mul (p, cubic) s = Add (x, c) r = Mul (s, root_2_pi)
        t = Tanh (r) a = Add (t, one) h = Mul (x, half) y = Mul (h, a)
    """,
}
QUICK = {
    "alpha": "v = Mul (x, {vector: 8}) a = Mul (v, alpha) s = Sigmoid (a) y = Mul (v, s)",
    "swapped": "v = Mul (x, {vector: 8}) a = Mul (alpha, v) s = Sigmoid (a) y = Mul (s, v)",
}
CENTRED = "mean = ReduceMean <axes = [-1]> (x) c = Sub (x, mean)"
LAYER_NORM = {
    "pow": CENTRED
    + """
        p = Pow (c, two) v = ReduceMean <axes = [-1]> (p) e = Add (v, epsilon) r = Sqrt (e)
        d = Div (c, r) m = Mul (d, {gamma: 8 positive}) y = Add (m, {beta: 8})
    """,
    "twice": CENTRED
    + """
        c2 = Sub (x, mean) p = Pow (c2, two) v = ReduceMean <axes = [-1]> (p) e = Add (v, epsilon) r = Sqrt (e)
        d = Div (c, r) m = Mul (d, {gamma: 8 positive}) y = Add (m, {beta: 8})
    """,
}
RMS_NORM = {
    "pow": """
        p = Pow (x, two) v = ReduceMean <axes = [-1]> (p) e = Add (v, epsilon) r = Sqrt (e)
        d = Div (x, r) y = Mul (d, {gamma: 8 positive})
    """,
    "one-over": """
        p = Pow (x, two) v = ReduceMean <axes = [-1]> (p) e = Add (v, epsilon) r = Sqrt (e)
        i = Div (one, r) d = Mul (x, i) y = Mul (d, {gamma: 8 positive})
    """,
    "of-centred": CENTRED
    + """
        p = Pow (c, two) v = ReduceMean <axes = [-1]> (p) e = Add (v, epsilon) r = Sqrt (e)
        d = Div (c, r) y = Mul (d, {gamma: 8 positive})
    """,
}
QUERY = "q0 = MatMul (x0, {wq: 8, 8}) q1 = Add (q0, {bq: 8})"
ATTENTION = {
    "before": QUERY
    + """
        q = Mul (q1, scale) xt = Transpose <perm = [0, 2, 1]> (x) k = Mul (xt, scale) s = MatMul (q, k)
        p = Softmax (s) y = MatMul (p, x)
    """,
    "behind": QUERY
    + """
        xt = Transpose <perm = [0, 2, 1]> (x) q = MatMul (q1, xt) s = Div (q, two)
        p = Softmax (s) y = MatMul (p, x)
    """,
}
FORMS = [
    pytest.param(body, name, id=f"{name}-{form}")
    for name, forms in {
        "Gelu": GELU,
        "FastGelu": TANH,
        "QuickGelu": QUICK,
        "LayerNormalization": LAYER_NORM,
        "SimplifiedLayerNormalization": RMS_NORM,
        "FusedMatMul": ATTENTION,
    }.items()
    for form, body in forms.items()
]


def between_matmuls(body, last="z = MatMul (y, {w2: 8, 8})"):
    return model_of(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[2, 5, 8] x0) => (float[2, 5, 8] z) {{
            x1 = MatMul (x0, {{w1: 8, 8}}) x = Add (x1, {{b1: 8}})
            {body}
            {last}
        }}"""
    )


def with_numbers(model):
    """The model with the numbers that it names."""
    used = {name for node in model.graph.node for name in node.input}
    numbers = {name: np.float32(value) for name, value in NUMBERS.items() if name in used}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items())
    return model


def optimized(model, tmp_path):
    """The operators that ONNX Runtime makes of a model, and how many of each."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)


@pytest.mark.parametrize(("body", "name"), FORMS)
def test_a_pattern_stays_whole(body, name, tmp_path):
    """ONNX Runtime finds it before and after; the affines in it are kept, and the reason says so."""
    before = with_numbers(between_matmuls(body))
    planned, after = folded(before)
    assert optimized(before, tmp_path)[name] == optimized(after, tmp_path)[name] == 1
    reasons = {refusal.reason for entry in planned.entries for refusal in entry.refusals}
    assert Reason.FUSED_BY_RUNTIME in reasons


# Forms that ONNX Runtime's tool for transformers and onnxscript know, and ONNX Runtime itself does not.
OTHERS = {
    "gelu-of-keras": "d = Mul (x, inverse_root2) e = Erf (d) a = Add (e, one) h = Mul (a, half) y = Mul (x, h)",
    "tanh-half-last": """
        p = Pow (x, three) c = Mul (p, cubic) s = Add (x, c) r = Mul (s, root_2_pi)
        t = Tanh (r) a = Add (t, one) m = Mul (x, a) y = Mul (m, half)
    """,
    "rms-reciprocal": """
        p = Mul (x, x) v = ReduceMean <axes = [-1]> (p) e = Add (v, epsilon) r = Sqrt (e)
        i = Reciprocal (r) d = Mul (x, i) y = Mul (d, {gamma: 8 positive})
    """,
}


@pytest.mark.parametrize("body", OTHERS.values(), ids=OTHERS)
def test_forms_that_tools_know(body):
    """Nothing in them changes."""
    before = with_numbers(between_matmuls(body))
    planned, after = folded(before)
    assert list(after.graph.node) == list(before.graph.node)
    assert Reason.FUSED_BY_RUNTIME in {refusal.reason for entry in planned.entries for refusal in entry.refusals}


NO_PATTERNS = {
    "another-number": GELU["half-last"].replace("root2", "two"),
    "read-elsewhere": GELU["half-last"] + " other = Relu (m) y_ = Add (y, other)",
    "quick-of-a-vector": QUICK["alpha"].replace("alpha", "{alphas: 8}"),
    "quick-of-another": QUICK["alpha"].replace("Mul (v, s)", "Mul (x, s)"),
    "plain-tanh": "t = Tanh (x) a = Add (t, one) y = Mul (a, half)",
    "scale-of-two-axes": LAYER_NORM["pow"].replace("gamma: 8", "gamma: 1, 8").replace("beta: 8", "beta: 1, 8"),
    "shifted-by-a-vector": LAYER_NORM["pow"].replace("epsilon", "{vector: 5, 1 positive}"),
}


@pytest.mark.parametrize("body", NO_PATTERNS.values(), ids=NO_PATTERNS)
def test_what_only_looks_like_a_pattern_folds(body):
    """Each breaks one condition of a pattern."""
    last = "z = MatMul (y_, {w2: 8, 8})" if "y_" in body else "z = MatMul (y, {w2: 8, 8})"
    planned, _ = folded(with_numbers(between_matmuls(body, last)))
    reasons = {refusal.reason for entry in planned.entries for refusal in entry.refusals}
    assert Reason.FUSED_BY_RUNTIME not in reasons


@pytest.mark.parametrize(("body", "name"), FORMS)
def test_asked_for_it_folds_inside(body, name):
    """No affine is then refused because of a pattern."""
    planned = plan(load(with_numbers(between_matmuls(body))), FoldOptions(inside_patterns=True))
    assert planned.changes or "Div (q, two)" in body  # a scale behind two computed matrices has nowhere to go
    assert Reason.FUSED_BY_RUNTIME not in {refusal.reason for entry in planned.entries for refusal in entry.refusals}


def test_a_batchnorm_goes_into_the_scale_and_bias_of_a_normalization(tmp_path):
    """Which runtimes then still know."""
    body = LAYER_NORM["pow"]
    before = with_numbers(
        model_of(
            f"""<ir_version: 8, opset_import: ["" : 17]> g (float[5, 8] x) => (float[5, 8] z) {{
                {body}
                z = BatchNormalization (y, {{bn: 8}})
            }}"""
        )
    )
    planned, after = folded(before)
    assert planned.count(Outcome.FOLDED) == 1
    assert optimized(after, tmp_path) == {"LayerNormalization": 1}


@pytest.mark.parametrize("body", GELU.values(), ids=GELU)
def test_a_batchnorm_passes_no_gelu(body, tmp_path):
    """It goes down, into the MatMul behind, and the Gelu stays whole."""
    before = with_numbers(
        model_of(
            f"""<ir_version: 8, opset_import: ["" : 17]> g (float[5, 8] x) => (float[5, 8] z) {{
                {body}
                n = BatchNormalization (y, {{bn: 8}})
                z = Gemm (n, {{w: 8, 8}}, {{b: 8}})
            }}"""
        )
    )
    planned, after = folded(before)
    assert planned.count(Outcome.FOLDED) == 1
    assert optimized(after, tmp_path) == {"Gelu": 1, "Gemm": 1}


@pytest.mark.parametrize("body", QUICK.values(), ids=QUICK)
def test_what_a_quick_gelu_reads_does_not_go_into_its_factor(body, tmp_path):
    """A scale of each channel could: the factor would be a vector, and the product pass the scale on to the MatMul."""
    text = f"g (float[2, 5, 8] x) => (float[2, 5, 8] z) {{ {body} z = MatMul (y, {{w2: 8, 8}}) }}"
    before = with_numbers(model_of(f'<ir_version: 8, opset_import: ["" : 17]> {text}'))
    planned, after = folded(before)
    assert optimized(after, tmp_path) == {"Mul": 1, "QuickGelu": 1, "MatMul": 1}
    assert not planned.changes
    assert folded(before, inside_patterns=True)[0].changes
