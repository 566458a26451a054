"""A report as a page: what it says, that nothing in it is a model's markup, and that it stays small."""

import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from helpers import model_of
from networks import MODELS
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.report import Draft, save_report
from bnfold.report.spreads import WIDENED

NASTY = "</script><img src=x onerror=alert(1)>'\"&<!--\u202egnp\u2066\n::error::\x1b[31m{{ 7*7 }}{% raw %}"


def conv_bn(names=("conv", "bn"), gamma=None, channels=4):
    """Conv, BatchNormalization, Relu."""
    conv, bn = names
    random = np.random.default_rng(0)
    arrays = {
        "w": random.normal(size=(channels, 3, 3, 3)),
        "gamma": np.ones(channels) if gamma is None else np.asarray(gamma),
        "beta": np.zeros(channels),
        "mean": np.zeros(channels),
        "var": np.ones(channels),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], conv, pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["b"], bn),
        helper.make_node("Relu", ["b"], ["y"], "relu"),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, 8, 8])]
        for name, size in (("x", 3), ("y", channels))
    )
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("name", ["digits_resnet", "digits_mlp", "digits_preact"])
@pytest.mark.parametrize("form", ["", ".decomposed", ".train"])
def test_every_fold_and_all_that_stays_is_told(page, name, form):
    """Each affine node that went has its name in one section, each BatchNormalization that stays in another."""
    result = bnfold.check(MODELS / f"{name}{form}.onnx")
    made = page(result)
    for entry in result.plan.entries:
        if entry.outcome is not bnfold.Outcome.KEPT:
            assert entry.node in made.sections["folds"]
        if entry.refusals and not entry.is_other:
            assert entry.node in made.sections["stays"]
            assert entry.refusals[0].reason.name in made.sections["stays"]
    assert str(result.source) in made.sections[""]


def optimized(name, **options):
    return bnfold.optimize((MODELS / f"{name}.onnx").read_bytes(), **options)


def test_it_needs_nothing_else(page):
    """No element of it loads or runs anything, and a browser is told to refuse what would."""
    made = page(optimized("digits_resnet", verify="off"))
    assert {tag for tag, _ in made.tags} & {"script", "img", "iframe", "object", "embed", "form", "base"} == set()
    for _, given in made.tags:
        assert "src" not in given
        assert [name for name in given if name.startswith("on")] == []
        assert (given.get("href") or "#").startswith(("#", "data:,"))
    policies = [given["content"] for tag, given in made.tags if tag == "meta" and "http-equiv" in given]
    assert policies[0].startswith("default-src 'none';")
    assert made.open == []


def test_before_and_after_are_drawn(page):
    """Of a Conv, a BatchNormalization and a Relu: all three and the input, then all but the BatchNormalization."""
    made = page(bnfold.check(conv_bn().SerializeToString()))
    assert made.drawings == [4, 3]
    assert "goes" in made.sections["folds"]
    assert "s(W*x + b) + t" in made.sections["folds"]  # the rule that did it


@pytest.mark.parametrize("is_named", [True, False])
def test_nodes_without_names_are_found_again(page, is_named):
    """They go by their outputs, of which the fold has renamed some."""
    model = onnx.load(MODELS / "digits_preact.onnx")
    if not is_named:
        for node in model.graph.node:
            node.ClearField("name")
    made = page(bnfold.check(model))
    named = page(bnfold.check(str(MODELS / "digits_preact.onnx")))
    assert made.drawings == named.drawings


def test_of_merged_branches_is_drawn_what_they_went_into(page):
    """Two Convs that are added become one, which is there afterwards; its weights alone are compared."""
    model = model_of("""<ir_version: 9, opset_import: ["" : 17]> g (T[1,4,8,8] x) => (T[1,4,8,8] y) {
        [one] a = Conv<pads=[1,1,1,1]>(x, {w: 4, 4, 3, 3})
        [two] b = Conv(x, {v: 4, 4, 1, 1})
        [bn] c = BatchNormalization(b, {bn: 4})
        [sum] s = Add(a, c)
        y = Relu(s)
    }""")
    made = page(bnfold.check(model.SerializeToString()))
    merged = next(entry for entry in bnfold.plan(model).entries if entry.outcome is bnfold.Outcome.MERGED)
    assert (merged.node, merged.into) == ("two", ("one",))
    assert made.drawings == [4, 3, 5, 3]
    assert re.findall(r'class="name">Conv <span class="mono">(\w+)<', made.text) == ["one"]


def test_a_widened_spread_is_a_warning(page):
    """A fold that makes one channel a hundred times as large as the others asks for scales for each channel."""
    made = page(bnfold.check(conv_bn(gamma=[100, 1, 1, 1]).SerializeToString()))
    assert "more than fourfold in 1 of 1 layers" in made.sections["weights"]
    assert "per_channel=True" in made.sections["weights"]
    even = page(bnfold.check(conv_bn(gamma=[WIDENED - 1] * 4).SerializeToString()))
    assert "no layer's spread more than fourfold" in even.sections["weights"]


def test_dead_channels_and_subnormal_weights_are_counted(page):
    """One channel is scaled to nothing, another to numbers below the normal ones."""
    made = page(bnfold.check(conv_bn(gamma=[0, 1e-38, 1, 1]).SerializeToString()))
    cells = dict(re.findall(r'data-head="(dead channels|subnormal)" class="figure">([^<]*)<', made.text))
    assert cells["dead channels"] == "0 → 1"
    before, after = cells["subnormal"].split(" → ")
    assert before == "0"
    assert 0 < int(after) <= 27


def test_the_verification_stands_beside_what_rounding_explains(page):
    """Every output and every region has its figures."""
    result = optimized("digits_resnet")
    made = page(result)
    assert "equivalent" in made.sections[""]
    for output in result.verification.outputs:
        assert output.name in made.sections["verification"]
    for region in result.verification.regions:
        assert region.suspect in made.sections["verification"]


def test_a_difference_is_seen_first(page, tmp_path):
    """Of two models that differ, the region and the output that do are marked."""
    other = onnx.load(MODELS / "digits_resnet.onnx")
    bias = next(tensor for tensor in other.graph.initializer if tensor.name.endswith("bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    result = bnfold.verify(str(MODELS / "digits_resnet.onnx"), other)
    made = page(result, source="a.onnx and b.onnx")
    assert "a.onnx and b.onnx" in made.sections[""]
    assert '<tr class="bad">' in made.text
    assert "different" in made.sections["verification"]


def test_statistics_and_drift(page):
    """What was measured is told for each BatchNormalization, also where `optimize` has measured it first."""
    data = str(MODELS / "digits_train.npz")
    calibrated = bnfold.calibrate(MODELS / "digits_mlp.train.onnx", data, max_samples=64)
    made = page(calibrated)
    drifted = page(bnfold.drift(calibrated.proto(), data, max_samples=64))
    both = page(optimized("digits_mlp.train", calibrate=data, calibration={"max_samples": 64}, verify="off"))
    for layer in calibrated.layers:
        assert layer.name in made.sections["statistics"]
        assert layer.name in drifted.sections["drift"]
        assert layer.name in both.sections["statistics"]


@pytest.mark.parametrize("place", ["source", "node", "value", "type"])
def test_names_are_no_markup(page, place):
    """A name that is HTML, ends a script, turns the direction or ends a line is shown as what it is."""
    model = conv_bn((NASTY, NASTY + "2") if place == "node" else ("conv", "bn"))
    if place == "value":
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = NASTY
        model.graph.input[0].name = model.graph.node[0].input[0] = f"x{NASTY}"
    if place == "type":
        model.graph.node[2].op_type, model.graph.node[2].domain = NASTY, "custom"
        model.opset_import.append(helper.make_opsetid("custom", 1))
    result = bnfold.check(model.SerializeToString(), keep=[] if place == "value" else ["*"] if place == "type" else [])
    if place == "source":
        result = type(result)(NASTY, result.plan)
    made = page(result)
    assert {tag for tag, _ in made.tags} & {"script", "img"} == set()
    assert "\\x1b[31m{{ 7*7 }}{% raw %}" in made.text
    assert not re.search("[\u202e\u2066\x1b]", made.text)
    assert made.open == []


def test_a_large_model_has_a_small_report(page):
    """Of five hundred folds a few are drawn, others named, and the rest counted."""
    lines = [
        f"c{number} = Conv<pads=[1,1,1,1]>(x{number}, {{w: 4, 4, 3, 3}}) "
        f"b{number} = BatchNormalization(c{number}, {{bn: 4}}) x{number + 1} = Relu(b{number})"
        for number in range(500)
    ]
    body = "\n".join(lines)
    model = model_of(f'<ir_version: 9, opset_import: ["" : 17]> g (T[1,4,8,8] x0) => (T[1,4,8,8] x500) {{ {body} }}')
    made = page(bnfold.check(model.SerializeToString()))
    assert len(made.text) < 700_000
    assert len(made.drawings) < 120
    assert "100 more layers are left out" in made.sections["weights"]


def test_folds_in_many_ways_are_bounded(page, monkeypatch):
    """As many ways are there as a page shows, and it says how many others there were."""
    monkeypatch.setattr("bnfold.report.folds.MOST_SHOWN", 1)
    monkeypatch.setattr("bnfold.report.bounds.MOST_SHOWN", 1)
    made = page(bnfold.check(str(MODELS / "digits_resnet.onnx")))
    assert "went 1 other ways are left out" in made.sections["folds"]
    assert "into Gemm" not in made.sections["folds"]


# --- the file ------------------------------------------------------------------------------------------------


def test_a_report_is_replaced_whole(tmp_path, monkeypatch):
    """If it cannot be made, what was there stays, and nothing else is left."""
    path = tmp_path / "report.html"
    result = bnfold.check(conv_bn().SerializeToString())
    save_report(result, path)
    first = path.read_text(encoding="utf-8")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(bnfold.ModelError, match="No space left"):
        save_report(result, path)
    assert path.read_text(encoding="utf-8") == first
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("report.onnx", "ends in .html", id="no-page"),
        pytest.param("link.html", "ends in .html", id="link-to-no-page"),
        pytest.param("gone/report.html", "there is no folder", id="no-folder"),
        pytest.param("taken.html", "is a folder", id="folder"),
        pytest.param("input.html", "is a model, data or another output itself", id="the-input"),
    ],
)
def test_what_is_no_place_for_a_report_is_refused(tmp_path, name, message):
    """Before any work is done."""
    (tmp_path / "taken.html").mkdir()
    (tmp_path / "link.html").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(bnfold.ModelError, match=message):
        Draft(tmp_path / name, [str(tmp_path / "input.html")])


def test_what_is_no_result_is_refused(tmp_path):
    """A path, for instance."""
    with pytest.raises(TypeError, match="not of str"):
        save_report("model.onnx", tmp_path / "report.html")


def test_nobody_else_imports_it():
    """`check` and `optimize` without a report do not wait for templates."""
    script = (
        "import bnfold, sys; bnfold.check(sys.argv[1]); bnfold.optimize(open(sys.argv[1], 'rb').read(), verify='off');"
        "assert not [name for name in sys.modules if name.startswith(('jinja2', 'bnfold.report'))]"
    )
    subprocess.run([sys.executable, "-c", script, str(MODELS / "digits_mlp.onnx")], check=True)
