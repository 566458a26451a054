"""Operators whose meaning hides in what is easily passed over: outputs, attributes, sequences, sparse constants."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from verification.helpers import Rewriting, parsed

from bnfold.verification import Verdict, verify

RANDOM = np.random.default_rng(0)
GATES = {
    "w": 0.3 * RANDOM.standard_normal((1, 8, 4)),
    "r": 0.3 * RANDOM.standard_normal((1, 8, 2)),
    "b": np.zeros((1, 16)),
}
GATES = {name: array.astype(np.float32) for name, array in GATES.items()}
LSTM = """n (float[5, 2, 4] x) => (float[5, 1, 2, 2] y) <int32[2] all = {5, 5}, int32[2] less = {5, 3}>
          {y = LSTM <hidden_size = 2@}"""
HARD = ', activations = ["HardSigmoid", "Tanh", "Tanh"], activation_alpha = [0.2], activation_beta = [0.5]'

UNSEEN = [
    Rewriting("activations of LSTM", LSTM, "> (x, w, r, b)", f"{HARD}> (x, w, r, b)", "> (x, w, r, b)", tensors=GATES),
    Rewriting("clip of LSTM", LSTM, "> (x, w, r, b)", ", clip = 0.01> (x, w, r, b)", "> (x, w, r, b)", tensors=GATES),
    Rewriting(
        "lengths of LSTM", LSTM, "> (x, w, r, b, all)", "> (x, w, r, b, less)", "> (x, w, r, b, all)", tensors=GATES
    ),
    Rewriting(
        "entries of a sequence",
        "n (float[N, 4] x) => (seq(float[K, 4]) y) <int64 one = {1}> {s = SplitToSequence <axis = 0> (x, one) @}",
        *("y = Identity (s)", "y = SequenceInsert (s, x)", "y = Identity (s)"),
    ),
]
"""That nothing evaluates as they should be: they are for the run."""


@pytest.mark.parametrize("case", UNSEEN, ids=str)
def test_what_is_not_evaluated_is_not_passed_over(case):
    """No claim that the regions are equal."""
    assert not verify(*case.wrongly(), run=False).complete


@pytest.mark.parametrize("case", [UNSEEN[0], UNSEEN[-1]], ids=str)
def test_what_is_not_evaluated_is_found_by_running(case):
    """Where the regions cannot tell, the run shows the difference."""
    assert verify(*case.wrongly()).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize("case", UNSEEN, ids=str)
def test_the_same_is_equivalent(case):
    """What is not touched needs no evaluation."""
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


def test_attributes_without_effect_are_not_passed_over():
    """Nothing is claimed of what no trial shows, and the report says what that is."""
    model = "n (float[1, 1, 3] x) => (float[1, 1, 6] y) <float[3] f = {1, 1, 2}> {y = Resize @ (x, , f)}"
    only = "<extrapolation_value = 7.0>"
    result = verify(*Rewriting("", model, before="", wrong=only, right="").wrongly(), run=False)
    assert "extrapolation_value of Resize differ, and had no effect on what was tried" in "".join(result.reasons)
    assert not result.complete


def test_values_are_infinite_where_that_counts():
    """An operator asks of them."""
    model = "n (float[1, 3] x) => (bool[1, 3] y) {y = IsInf @ (x)}"
    case = Rewriting("", model, before="", wrong="<detect_negative = 0>", right="")
    assert verify(*case.wrongly(), run=False).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(("parts", "verdict"), [(3, Verdict.DIFFERENT), (2, Verdict.EQUIVALENT)])
def test_a_split_makes_as_many_parts_as_it_has_outputs(parts, verdict):
    """Without sizes, the number of outputs says what each of them is."""
    model = "n (float[N, 6, 8] x) => (float[N, M, 8] y) {OUTS = Split <axis = 1> (x) y = Relu (s0)}"
    before, after = (
        parsed(model.replace("OUTS", ", ".join(f"s{k}" for k in range(count))), opset=11) for count in (2, parts)
    )
    assert verify(before, after, run=False).verdict is verdict


def test_an_output_that_is_all_nan_tells_nothing():
    """Neither regions nor outputs say anything: the verdict says so, whatever the two compute."""
    model = """n (float[N, 3] x) => (float[N, 3] y) <float k = {1}, float j = {3}>
               {a = Abs (x) b = Neg (a) c = Sub (b, k) d = Sqrt (c) y = com.microsoft.TransposeMatMul (d, @)}"""
    weights = {"w": np.eye(3, dtype=np.float32), "v": 3 * np.eye(3, dtype=np.float32)}
    result = verify(*Rewriting("", model, before="w", wrong="v", right="w", tensors=weights).wrongly())
    assert result.verdict is Verdict.NOT_VERIFIED
    assert any("'y' tells nothing" in reason for reason in result.reasons)


def test_a_sequence_may_have_another_length_in_another_run():
    """Entries that some batches do not have are nothing to stumble over."""
    model = parsed(
        """n (float[N, 4] x) => (seq(float[K, 4]) y) <int64 one = {1}, float k = {2}>
           {t = Mul (x, k) y = SplitToSequence <axis = 0> (t, one)}"""
    )
    assert verify(model, model).verdict is Verdict.EQUIVALENT


@pytest.mark.parametrize(("factor", "verdict"), [(1, Verdict.EQUIVALENT), (2, Verdict.DIFFERENT)])
def test_sparse_constants_count_by_their_content(factor, verdict):
    """The same content is the same constant."""
    assert verify(sparse(1), sparse(factor), run=False).verdict is verdict


def sparse(factor: float) -> onnx.ModelProto:
    model = parsed("n (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w> {y = MatMul (x, w)}")
    values = helper.make_tensor("w", TensorProto.FLOAT, [3], [factor, 2.0, 3.0])
    places = helper.make_tensor("w_places", TensorProto.INT64, [3], [0, 5, 9])
    del model.graph.value_info[:]
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 4]))
    return model


def test_an_input_that_lost_its_default_is_noted():
    """What computes the same as it stands, and can no longer be overridden by a caller."""
    model = "n (float[N, 2] x@) => (float[N, 2] y) <float[2] w = {1, 2}> {y = Mul (x, w)}"
    result = verify(parsed(model.replace("@", ", float[2] w")), parsed(model.replace("@", "")), run=False)
    assert any("no input 'w'" in reason for reason in result.reasons)


def test_what_does_not_load_is_different():
    """An output that is not of the type that AFTER declares: the runtime refuses what the regions find equal."""
    model = "n (int32[N, 2] x) => (float[N, 2] y) {y = Cast <to = @> (x)}"
    assert verify(*(parsed(model.replace("@", to)) for to in ("1", "11"))).verdict is Verdict.DIFFERENT
