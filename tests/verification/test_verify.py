"""The verb on models that differ in other ways than a bad fold, and on those that cannot be run."""

import json

import ml_dtypes
import numpy as np
import onnx
import pytest
from networks import MODELS
from onnx import TensorProto, numpy_helper
from verification.helpers import KINDS, Net, Rewriting

from bnfold.data import DataError
from bnfold.model_io import ModelError, load
from bnfold.verification import InterfaceError, Outcome, Verdict, verify
from bnfold.verification.running import runner
from bnfold.verification.running.figures import figures
from bnfold.verification.running.runner import Job, Limits, Runner


def text(body: str, header: str = '<ir_version: 8, opset_import: ["": 17, "com.unknown": 1]>') -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{header}\n{body}")


def relu(name: str = "y") -> onnx.ModelProto:
    return text(f"net (float[N, 4] x) => (float[N, 4] {name}) {{ {name} = Relu(x) }}")


@pytest.mark.parametrize(
    ("after", "message"),
    [
        pytest.param(relu("z"), "no output 'y'", id="output-name"),
        pytest.param(text("n (float[N,4] a) => (float[N,4] y) { y = Relu(a) }"), "no input 'x'", id="input-name"),
        pytest.param(text("n (double[N,4] x) => (double[N,4] y) { y = Relu(x) }"), "is 'x' double", id="type"),
        pytest.param(text("n (float[N,5] x) => (float[N,5] y) { y = Relu(x) }"), "is 'x' float", id="shape"),
        pytest.param(text("n (float[4] x) => (float[4] y) { y = Relu(x) }"), "is 'x' float", id="rank"),
    ],
)
def test_another_interface_is_refused(after, message):
    """Models with other inputs or outputs cannot be compared; one line says which."""
    with pytest.raises(InterfaceError, match=message) as refused:
        verify(relu(), after)
    assert "\n" not in str(refused.value)


def test_outputs_may_be_mapped():
    """An output with another name is compared under a mapping."""
    assert verify(relu(), relu("z"), map_output={"y": "z"}).verdict is Verdict.EQUIVALENT
    with pytest.raises(InterfaceError, match="no output 'w'"):
        verify(relu(), relu("z"), map_output={"w": "z"})


def test_the_same_model_has_no_regions():
    """Nothing that is equal by structure is evaluated."""
    result = verify(relu(), relu())
    assert result.verdict is Verdict.EQUIVALENT
    assert result.complete
    assert not result.regions


def test_renamed_values_are_matched_by_structure():
    """All inner names lost, and still nothing to evaluate."""
    model = KINDS["depthwise"](Net("float32", 0, 1.0))
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    for node in renamed.graph.node[:-1]:
        for other in renamed.graph.node:
            other.input[:] = [f"{name}_" if name == node.output[0] else name for name in other.input]
        node.output[0] += "_"
        node.name = ""
    assert not verify(model, renamed, run=False).regions


def test_a_redefined_value_is_made_up_for():
    """A factor moved from one Conv into the next, names kept: equivalent, and the value between is reported."""
    before = KINDS["depthwise"](Net("float32", 0, 1.0))
    del before.graph.node[1]  # the BatchNormalization between the two Convs
    before.graph.node[1].input[0] = before.graph.node[0].output[0]
    after = onnx.ModelProto()
    after.CopyFrom(before)
    first, second = (node for node in after.graph.node if node.op_type == "Conv")
    tensors = {tensor.name: tensor for tensor in after.graph.initializer}
    for node, factor in ((first, 4.0), (second, 0.25)):
        scaled = numpy_helper.to_array(tensors[node.input[1]]) * np.float32(factor)
        tensors[node.input[1]].CopyFrom(numpy_helper.from_array(scaled, node.input[1]))
    result = verify(before, after, run=False)
    assert result.verdict is Verdict.EQUIVALENT
    assert [region.outcome for region in result.regions] == [Outcome.REDEFINED, Outcome.EQUAL]
    damaged = numpy_helper.to_array(tensors[second.input[1]]) * np.float32(1.0001)
    tensors[second.input[1]].CopyFrom(numpy_helper.from_array(damaged, second.input[1]))
    assert verify(before, after, run=False).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(("last", "verdict"), [("Neg (b)", Verdict.EQUIVALENT), ("Neg (a)", Verdict.DIFFERENT)])
def test_a_redefined_value_is_made_up_for_wherever_it_is_read(last, verdict):
    """A factor goes up a MatMul whose name stays: one of two outputs makes up for it, and the other has to as well."""
    model = "n (float[N, 8] x) => (float[N, 8] y, float[N, 8] z) <float two = {2}> { @ }"
    tensors = {"w": np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)}
    before = f"a = MatMul (x, w) b = Mul (a, two) y = Relu (b) z = {last}"
    after = "c = Mul (x, two) a = MatMul (c, w) y = Relu (a) z = Neg (a)"
    assert verify(*Rewriting("", model, before, after, "", tensors=tensors).wrongly(), run=False).verdict is verdict


@pytest.mark.parametrize(("last", "verdict"), [("d", Verdict.EQUIVALENT), ("a", Verdict.DIFFERENT)])
def test_what_makes_up_for_a_redefined_value_may_have_a_name_of_its_own(last, verdict):
    """Two operators read what has taken back the factor, or one of them what has not."""
    model = "n (float[N, 8] x) => (float[N, 8] y) <float two = {2}, float half = {0.5}> { @ y = Add (b, c) }"
    before = "a = Relu (x) b = Sin (a) c = Cos (a)"
    after = f"r = Relu (x) a = Mul (r, two) d = Mul (a, half) b = Sin (d) c = Cos ({last})"
    assert verify(*Rewriting("", model, before, after, "").wrongly(), run=False).verdict is verdict


def test_training_mode_is_not_inference_mode():
    """A BatchNormalization that was exported in training mode does not compute what its inference form does."""
    result = verify(MODELS / "digits_mlp.train.onnx", MODELS / "digits_mlp.onnx")
    assert result.verdict is Verdict.DIFFERENT
    assert "BatchNormalization" in result.first_difference.suspect


def test_beta_of_gemm_and_padding_count():
    """A lost attribute is as wrong as a lost weight."""
    for kind, op_type, attribute in (("gemm", "Gemm", "beta"), ("conv", "Conv", "pads")):
        before = KINDS[kind](Net("float32", 0, 1.0))
        after = onnx.ModelProto()
        after.CopyFrom(before)
        node = next(node for node in after.graph.node if node.op_type == op_type)
        kept = [entry for entry in node.attribute if entry.name != attribute]
        del node.attribute[:]
        node.attribute.extend(kept)
        result = verify(before, after, run=False)
        assert result.verdict is Verdict.DIFFERENT
        assert op_type in result.first_difference.suspect


BRANCH = """
net (float[N, 3] x, bool c) => (float[N, 3] y) <float[3] k = {{1.0, 2.0, 3.0}}> {{
    v = If (c) <
        then_branch = t () => (float[N, 3] a) {{ a = Mul(x, k) }},
        else_branch = e () => (float[N, 3] b) {{ f = Constant<value = float[1] {{{factor}}}>() b = Mul(x, f) }}
    >
    y = Relu(v)
}}
"""


def test_bodies_of_if_are_compared():
    """Both branches count, whatever condition the input makes up."""
    before = text(BRANCH.format(factor=2.0))
    assert verify(before, text(BRANCH.format(factor=2.0)), run=False).complete
    result = verify(before, text(BRANCH.format(factor=2.001)), run=False)
    assert result.verdict is Verdict.DIFFERENT


def test_functions_are_looked_into():
    """A difference in a model's own function is found."""
    source = """
        net (float[N, 3] x) => (float[N, 3] y) {{ y = my.scale(x) }}
        <domain: "my", opset_import: ["": 17]> scale (v) => (w)
        {{ f = Constant<value = float[1] {{{factor}}}>() w = Mul(v, f) }}
    """
    header = '<ir_version: 8, opset_import: ["": 17, "my": 1]>'
    one, other = (text(source.format(factor=factor), header) for factor in (2.0, 2.5))
    assert verify(one, one, run=False).verdict is Verdict.EQUIVALENT
    assert verify(one, other, run=False).verdict is Verdict.DIFFERENT


def test_nothing_can_evaluate_an_unknown_operator():
    """The verdict says so, and names the operator; it does not pass for equal."""
    body = "net (float[N, 3] x) => (float[N, 3] y) {{ y = com.unknown.Odd <factor = {}> (x) }}"
    result = verify(text(body.format(1.0)), text(body.format(2.0)), strict=False)
    assert result.verdict is Verdict.NOT_VERIFIED
    assert not result.complete
    assert any("Odd" in reason for reason in result.reasons)
    assert verify(text(body.format(1.0)), text(body.format(1.0)), strict=False).verdict is Verdict.EQUIVALENT


@pytest.mark.parametrize("kind", ["conv", "transposed", "gemm"])
def test_bfloat16_is_compared(kind):
    """A type that ONNX Runtime has no kernels for is compared region by region, weights rounded to it."""
    before = KINDS[kind](Net("float32", 0, 1.0))
    for tensor in before.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for entry in (*before.graph.input, *before.graph.output):
        entry.type.tensor_type.elem_type = TensorProto.BFLOAT16
    from bnfold.folding import plan  # noqa: PLC0415 -- the one test here that folds
    from bnfold.model_io import load, to_proto  # noqa: PLC0415

    after = to_proto(plan(load(before)).model)
    result = verify(before, after, run=False)
    assert result.verdict is Verdict.EQUIVALENT
    assert result.complete


def test_float16_overflow_is_a_difference():
    """A weight that is infinite where it was not is found."""
    before, after = (text("net (float16[N,2] x) => (float16[N,2] y) { y = Mul(x, k) }") for _ in range(2))
    for model, factor in ((before, 3.0), (after, np.inf)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([2.0, factor], np.float16), "k"))
    assert verify(before, after).verdict is Verdict.DIFFERENT


def test_nan_at_the_same_place_is_equal():
    """NaN where the original has NaN is no difference; anywhere else it is."""
    nan = np.array([1.0, np.nan, 3.0])
    assert figures(nan, nan).misplaced == 0
    assert figures(nan, np.array([1.0, 2.0, 3.0])).misplaced == 1
    assert figures(np.array([np.inf, 1.0]), np.array([-np.inf, 1.0])).misplaced == 1
    assert (
        verify(
            text("n (float[N,4] x) => (float[N,4] y) { y = Log(x) }"),
            text("n (float[N,4] x) => (float[N,4] y) { z = Identity(x) y = Log(z) }"),
        ).verdict
        is Verdict.EQUIVALENT
    )


def test_figures_are_what_they_say():
    """Every figure of a known pair."""
    found = figures(np.array([[3.0, 4.0]], np.float32), np.array([[3.0, 4.5]], np.float32))
    assert (found.scale, found.max_abs, found.max_rel, found.index) == (4.0, 0.5, 0.125, (0, 1))
    assert found.rms == pytest.approx(0.5 / np.sqrt(2) / 4)
    assert found.snr_db == pytest.approx(20.0)
    assert found.ulps == pytest.approx(0.5 / np.spacing(np.float32(4)))
    assert found.argmax_agreement == 1.0
    assert figures(np.zeros((2, 3)), np.zeros((3, 2))).misplaced == 6


def test_a_crash_is_a_result(tmp_path, monkeypatch):
    """A child that dies, or takes too long, takes only its own job with it."""
    good = tmp_path / "good.onnx"
    onnx.save(relu(), good)
    feed = {"x": np.ones((1, 4), np.float32)}
    crashing = tmp_path / "child.py"
    monkeypatch.setattr(runner, "CHILD", crashing)
    crashing.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with Runner(Limits()) as child:
        assert "SIGSEGV" in child.run([Job(good, [feed])])[0][0].error
    crashing.write_text("import time; time.sleep(60)")
    with Runner(Limits(seconds=0.5)) as child:
        assert "more than" in child.run([Job(good, [feed])])[0][0].error


def test_the_users_tolerance_overrides():
    """With a tolerance of the user, the figures are held against that."""
    before = text("n (float[N,4] x) => (float[N,4] y) <float[1] k = {1.0}> { y = Mul(x, k) }")
    after = text("n (float[N,4] x) => (float[N,4] y) <float[1] k = {1.001}> { y = Mul(x, k) }")
    result = verify(before, after, rtol=1e-2)
    assert all(output.passed for output in result.outputs)
    assert not verify(before, after, rtol=1e-4).outputs[0].passed
    assert result.passing_tolerance == pytest.approx(1e-3, rel=1e-2)


def test_data_of_the_user_is_used_and_checked(tmp_path):
    """Data that fits is run; data that does not is named in one line."""
    np.savez(tmp_path / "good.npz", x=np.ones((5, 4), np.float32))
    assert "data" in verify(relu(), relu(), data=[tmp_path / "good.npz"]).outputs[0].inputs
    np.savez(tmp_path / "type.npz", x=np.ones((5, 4)))
    np.savez(tmp_path / "shape.npz", x=np.ones((5, 3), np.float32))
    np.savez(tmp_path / "name.npz", z=np.ones((5, 4), np.float32))
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("type.npz", "does not take double"),
        ("shape.npz", r"does not take float\[5,3\]"),
        ("name.npz", "no array for input 'x'"),
        ("empty", "empty"),
        ("missing.npy", "no such file"),
    ):
        with pytest.raises(DataError, match=message) as refused:
            verify(relu(), relu(), data=[tmp_path / name])
        assert "\n" not in str(refused.value)


def test_indices_stay_in_range():
    """Integer inputs that choose from a table choose what is there."""
    body = "n (int64[N, 5] i) => (float[N, 5, 2] y) <float[3, 2] t = {1.,2.,3.,4.,5.,6.}> {"
    result = verify(text(f"{body} y = Gather(t, i) }}"), text(f"{body} z = Gather(t, i) y = Identity(z) }}"))
    assert result.verdict is Verdict.EQUIVALENT
    assert result.how.startswith("ONNX Runtime")


@pytest.mark.parametrize(("sizes", "axis"), [("n, k", 1), ("2, 3", 2), ("2, 3", -3)], ids=["open", "beyond", "before"])
def test_how_many_there_are_to_choose_from_is_not_known(sizes, axis):
    """The first one always is, where the model is valid."""
    body = f"n (float[{sizes}] x, int64[4] i) => (float[a, b] y) {{ r = Relu (x) y = Gather <axis = {axis}> (r, i) }}"
    result = verify(text(body), text(body), strict=False)
    assert result.verdict is Verdict.EQUIVALENT
    assert result.how.startswith("ONNX Runtime" if sizes == "n, k" else "")


@pytest.mark.parametrize("node", ["r, u = Identity (x)", "r, u = Constant <value = float[1] {1}> ()"])
def test_an_operator_of_too_many_outputs(node):
    """Is like any other that is unknown: the same in both."""
    model = text(f"n (float[2] x) => (float[2] y) {{ {node} y = Add (x, r) }}")
    assert verify(model, model, run=False, strict=False).verdict is Verdict.EQUIVALENT


def test_a_model_in_memory_is_taken_as_it_is_now():
    """A model that was read from a file and edited since is not run as the file."""
    edited = load(MODELS / "digits_resnet.onnx")
    bias = next(tensor for tensor in edited.proto.graph.initializer if len(tensor.dims) == 1)
    bias.CopyFrom(numpy_helper.from_array(edited.array(bias) + 1, bias.name))
    result = verify(load(MODELS / "digits_resnet.onnx"), edited)
    assert result.verdict is Verdict.DIFFERENT
    assert not result.outputs[0].passed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("y = Relu(x)", "h = Cast<to = 10>(x) f = Cast<to = 1>(h) y = Relu(f)", id="half-activations"),
        pytest.param("y = Relu(x)", "h = Cast<to = 17>(x) f = Cast<to = 1>(h) y = Relu(f)", id="float8-activations"),
        pytest.param(
            "w = Constant<value = float[1] {1.1}>() y = Mul(x, w)",
            "c = Constant<value = float[1] {1.1}>() h = Cast<to = 10>(c) w = Cast<to = 1>(h) y = Mul(x, w)",
            id="half-weights",
        ),
        pytest.param(
            "c = Constant<value = float[1] {1}>() h = Cast<to = 10>(c) b = Cast<to = 1>(h) y = Add(x, b)",
            "c = Constant<value = float[1] {1}>() h = Cast<to = 10>(c) g = Cast<to = 10>(x) s = Add(g, h)"
            " y = Cast<to = 1>(s)",
            id="half-activations-beside-half-weights",
        ),
        pytest.param(
            "h = Cast<to = 17>(x) y = Cast<to = 1>(h)",
            "h = Cast<to = 17, saturate = 0>(x) y = Cast<to = 1>(h)",
            id="float8-that-does-not-saturate",
        ),
    ],
)
def test_a_narrower_type_is_a_difference(before, after):
    """A value or weight that AFTER rounds to fewer bits than BEFORE is no rounding of a fold."""
    header = '<ir_version: 9, opset_import: ["": 19]>'
    models = [text(f"n (float[N, 4] x) => (float[N, 4] y) {{ {body} }}", header) for body in (before, after)]
    assert verify(*models).verdict is Verdict.DIFFERENT


def test_softmax_means_what_its_opset_says():
    """Before opset 13 Softmax is taken over all axes from its own on."""
    body = "n (float[N, 3, 5] x) => (float[N, 3, 5] y) { y = Softmax<axis = 1>(x) }"
    headers = ['<ir_version: 8, opset_import: ["": 11]>', '<ir_version: 8, opset_import: ["": 13]>']
    assert verify(*(text(body, header) for header in headers)).verdict is Verdict.DIFFERENT


def test_other_defaults_are_a_difference():
    """An initializer that a caller may override counts with the content that it has."""
    body = "n (float[N, 2] x, float[2] w) => (float[N, 2] y) <float[2] w = {VALUES}> { y = Mul(x, w) }"
    models = [text(body.replace("VALUES", values)) for values in ("1., 2.", "1., 3.")]
    assert verify(*models).verdict is Verdict.DIFFERENT


def test_unknown_shapes_and_dimensions_are_refused():
    """A shape for an input, or a size for a dimension, that is not there."""
    with pytest.raises(ModelError, match="no input 'z'"):
        verify(relu(), relu(), shapes={"z": (1, 4)})
    with pytest.raises(ModelError, match="cannot have the shape"):
        verify(relu(), relu(), shapes={"x": (1, 5)})
    with pytest.raises(ModelError, match="dimension 'M'"):
        verify(relu(), relu(), dims={"M": 2})


def test_the_record_is_json():
    """to_dict holds what JSON can hold, infinities included."""
    result = verify(relu(), text("n (float[N,4] x) => (float[N,4] y) { y = Abs(x) }"))
    assert result.verdict is Verdict.DIFFERENT
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["verdict"] == "different"
    assert content["regions"][0]["outcome"] == "different"
