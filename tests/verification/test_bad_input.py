"""What cannot be worked with is told in one line before any work, with exit code 2."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from networks import MODELS
from onnx import TensorProto, helper

import bnfold
from bnfold.commands import program
from bnfold.model_io import load
from bnfold.verification import Verdict, verify
from bnfold.verification.running import admission

MODEL = MODELS / "digits_mlp.onnx"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["verify", *map(str, arguments)])


def assert_refused(result: Result, message: str = "") -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("bnfold: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--seed", value) for value in ("-1", "1.5", "x")),
        *((flag, value) for flag in ("--memory", "--timeout") for value in ("nan", "inf", "-inf", "-1", "0", "1e300")),
        *((flag, value) for flag in ("--rtol", "--atol") for value in ("nan", "inf", "-1", "x")),
        *(("--dim", value) for value in ("batch=0", "batch=-1", "batch=x", "batch", "=3", "batch=9e9", "nope=3")),
        ("--dim", f"batch={2**31 - 1}"),
        ("--dim", f"batch={10**30}"),
        ("--dim", "batch=2", "--dim", "batch=3"),
        *(("--shape", f"image={value}") for value in ("", "a", "2,,8,8", "2,1,8", "2,1,8,9", "-1,1,8,8", "2,1,8,8,")),
        ("--shape", "image=0,1,8,8"),
        ("--shape", "nope=2"),
        ("--shape", "image=2,1,8,8", "--shape", "image=3,1,8,8"),
        ("--shape", "image=2,1,8,8", "--dim", "batch=3"),
        *(("--map-output", value) for value in ("A", "=B", "A=", "nope=logits", "logits=nope")),
        ("--map-output", "logits=logits", "--map-output", "logits=b"),
        *(("--provider", value) for value in ("Nope", "", "cpuexecutionprovider")),
        *(("--no-run", flag, value) for flag, value in (("--rtol", "1"), ("--atol", "1"), ("--provider", "CPU"))),
        ("--format", "xml"),
        ("--static",),
        ("--nonsense",),
    ],
    ids=" ".join,
)
def test_options(arguments):
    """A value that means nothing is a usage error, and nothing that is given is ignored."""
    assert_refused(run(MODEL, MODEL, *arguments))


def test_tiny_limits_are_limits():
    """Too little memory is a result: the regions decide."""
    result = run(MODEL, MODEL, "--memory", "1e-12", "--format", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["outputs"] == []


def test_missing_arguments():
    """Also what click finds is one line."""
    assert_refused(run(MODEL), "AFTER is missing")
    result = CliRunner().invoke(program, ["optimize"], prog_name="bnfold")
    assert_refused(result, "Missing argument 'MODEL...'. (see bnfold optimize --help)")


@pytest.mark.parametrize("flags", [[], ["--no-run"]])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x08", MODEL.read_bytes()[:-9]], ids=range(4))
def test_files_that_are_no_models(content, flags, tmp_path):
    """Empty, damaged, something else: on either side."""
    (tmp_path / "bad.onnx").write_bytes(content)
    assert_refused(run(tmp_path / "bad.onnx", MODEL, *flags), "bad.onnx")
    assert_refused(run(MODEL, tmp_path / "bad.onnx", *flags), "bad.onnx")


def test_places_without_a_model(tmp_path):
    """A folder, and nothing at all."""
    assert_refused(run(MODEL, tmp_path), "is a folder")
    assert_refused(run(MODEL, tmp_path / "missing.onnx"), "missing.onnx")
    assert_refused(run(MODEL, MODELS / "digits_labels.npz"), "digits_labels.npz")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files(tmp_path):
    """A model and data that nobody may read."""
    for name in ("model.onnx", "data.npz"):
        (tmp_path / name).touch(mode=0)
    assert_refused(run(tmp_path / "model.onnx", MODEL), "Permission denied")
    assert_refused(run(MODEL, MODEL, "--data", tmp_path / "data.npz"), "Permission denied")


SCRIPT = """
import sys
import numpy as np
x = np.zeros((8, 1, 8, 8), np.float32)
def ends(): sys.exit(3)
def ends_later():
    yield x
    sys.exit("a word\\nand another")
def fails(): raise ValueError("two\\nlines")
def gives_nothing(): yield from ()
def returns_nothing(): return None
def a_number(): return 3
def text(): return "abc"
def objects(): yield np.array([[object()]])
def wants_more(argument): yield x
def ragged(): yield [[1, 2], [3]]
def empty(): yield x[:0]
"""


@pytest.mark.parametrize(
    "source",
    [
        *(f"script.py:{line.split()[1].split('(')[0]}" for line in SCRIPT.splitlines() if line.startswith("def ")),
        *("script.py", "script.py:missing", "exits.py:f", "wrong.py:f", "missing.py:f"),
        *("empty", "nothing*", "missing.npz", "missing.npy", "text.txt", "text.npy", "text.npz"),
        *("name.npz", "shape.npz", "double.npz", "date.npz", "records.npz", "long.npz", "rows.npz", "objects.npy"),
    ],
)
def test_data(source, tmp_path):
    """Data that is not there, cannot be read, ends the program, or is not for this model."""
    x = np.zeros((8, 1, 8, 8), np.float32)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "exits.py").write_text("raise SystemExit(5)")
    (tmp_path / "wrong.py").write_text("def f(:")
    (tmp_path / "empty").mkdir()
    for name in ("text.txt", "text.npy", "text.npz"):
        (tmp_path / name).write_text("hello")
    np.savez(tmp_path / "name.npz", nope=x)
    np.save(tmp_path / "objects.npy", np.array([{}] * 8))
    arrays = {"shape": x[:, :, :5], "double": x.astype(float), "long": x.astype(np.longdouble), "rows": x[:0]}
    arrays |= {"date": np.zeros(x.shape, "datetime64[s]"), "records": np.zeros(x.shape, [("a", "f4")])}
    for name, array in arrays.items():
        np.savez(tmp_path / f"{name}.npz", image=array)
    assert_refused(run(MODEL, MODEL, "--data", tmp_path / source))


Make = Callable[..., Path]


@pytest.fixture
def made(tmp_path) -> Make:
    """Writes a model y = OP(x) of any versions."""

    def make(op_type: str = "Relu", domain: str = "", ir_version: int = 8, **opsets: int) -> Path:
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
        nodes = [helper.make_node(op_type, ["x"], ["y"], domain=domain)]
        graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
        imports = [helper.make_opsetid(name.replace("_", "."), version) for name, version in opsets.items()]
        model = onnx.ModelProto(ir_version=ir_version, graph=graph)
        model.opset_import.extend(imports or [helper.make_opsetid("", 17)])
        path = tmp_path / f"{op_type}{domain}{ir_version}{opsets}.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return make


@pytest.mark.parametrize("flags", [[], ["--no-run"]])
@pytest.mark.parametrize("wrong", [{"op_type": "Relux"}, {"ir_version": 999}, {"ir_version": 1}])
def test_invalid_models(wrong, flags, made):
    """An invalid BEFORE is nothing to compare with; an AFTER that alone is invalid is different."""
    assert_refused(run(made(**wrong), made(**wrong), *flags), "BEFORE is no valid model")
    assert_refused(run(made(**wrong), made(), *flags), "BEFORE is no valid model")
    result = run(made(), made(**wrong), *flags)
    assert result.exit_code == 1
    assert result.stdout.startswith("different: AFTER is no valid model")


UNKNOWN = {
    "opset": {"ai_onnx": 99},
    "opset of another domain": {"ai_onnx": 17, "ai_onnx_ml": 99},
    "domain": {"op_type": "Foo", "domain": "acme", "ai_onnx": 17, "acme": 1},
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_models_that_onnx_runtime_does_not_know(name, made):
    """They are refused on either side, and the line says how to compare them nevertheless."""
    strange = made(**UNKNOWN[name])
    assert_refused(run(strange, strange), "BEFORE: this ONNX Runtime")
    assert_refused(run(made(), strange), "AFTER: this ONNX Runtime")
    result = run(strange, strange, "--no-run")
    assert result.exit_code == 0


def test_what_may_be_unknown_is_asked_for(made, monkeypatch):
    """A new opset that ONNX Runtime knows passes, and so does its own domain; nothing is asked of what is old."""
    for model in (made(ai_onnx=22), made("Gelu", "com.microsoft", ai_onnx=17, com_microsoft=1)):
        assert run(model, model).exit_code == 0
    monkeypatch.setattr(admission, "_answer", lambda *_: pytest.fail("it was asked"))
    assert run(made(), made()).exit_code == 0


@pytest.mark.parametrize(
    "error",
    [
        BlockingIOError("no more processes"),
        subprocess.TimeoutExpired("probe", 1),
        subprocess.CalledProcessError(1, "probe"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_where_onnx_runtime_does_not_answer_the_models_are_admitted(error, made, monkeypatch):
    """Whatever it is that it lacks: running them will tell."""

    def failing(*_, **__):
        raise error

    monkeypatch.setattr(subprocess, "run", failing)
    providers = ["CPUExecutionProvider"]
    assert admission.admitted({"BEFORE": load(made(ai_onnx=22))}, providers) == tuple(providers)


def test_optimize_is_not_strict(tmp_path):
    """What can be folded is folded, though onnx.checker would refuse it."""
    model = onnx.load(MODEL)
    model.graph.node.append(helper.make_node("Relux", ["logits"], ["more"]))
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["batch", 10]))
    result = bnfold.optimize(model)
    assert result.verification is not None
    assert result.verification.verdict is Verdict.EQUIVALENT
    with pytest.raises(bnfold.ModelError, match="BEFORE is no valid model"):
        verify(model, bnfold.fold(model))


def test_providers_that_are_not_there():
    """Those that there are, are named; ONNX Runtime itself would take the CPU and say nothing."""
    result = run(MODEL, MODEL, "--provider", "NopeExecutionProvider")
    assert_refused(result, "no execution provider 'NopeExecutionProvider' here; it has")
    assert "CPUExecutionProvider" in result.stderr


def test_the_report_names_the_providers_in_use():
    """Not those that were asked for, but those of the session."""
    others = [name for name in onnxruntime.get_available_providers() if name != "CPUExecutionProvider"]
    assert "CPUExecutionProvider" not in verify(MODEL, MODEL, providers=["CPUExecutionProvider"]).how
    if "AzureExecutionProvider" in others:
        found = verify(MODEL, MODEL, providers=["AzureExecutionProvider"])
        assert "AzureExecutionProvider, CPUExecutionProvider" in found.how


def two_outputs(order: str, elem_type: str = "float") -> onnx.ModelProto:
    outputs = ", ".join(f"{elem_type}[N,4] {name}" for name in order)
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> n (float[N,4] x) => ({outputs}) {{ a = Relu(x) b = Neg(x) }}'
    )


@pytest.mark.parametrize("run_them", [True, False])
def test_the_order_of_outputs_is_told(run_them):
    """By name all is well, by position it is not: a note, and equivalent."""
    result = verify(two_outputs("ab"), two_outputs("ba"), run=run_them)
    assert result.verdict is Verdict.EQUIVALENT
    assert any("outputs in another order" in reason for reason in result.reasons)
    assert not any("order" in reason for reason in verify(two_outputs("ab"), two_outputs("ab"), run=run_them).reasons)


@pytest.mark.parametrize("run_them", [True, False])
def test_an_output_of_another_type_than_declared(run_them):
    """ONNX Runtime does not load such a model; without running it, inference tells."""
    right = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> n (int32[N] x) => (float[N] y) { y = Cast <to = 1> (x) }'
    )
    wrong = onnx.ModelProto.FromString(right.SerializeToString())
    wrong.graph.node[0].attribute[0].i = TensorProto.DOUBLE
    result = verify(right, wrong, run=run_them)
    assert result.verdict is Verdict.DIFFERENT
    assert "double" in str(result)
    if not run_them:
        with pytest.raises(bnfold.ModelError, match="BEFORE is no valid model: output 'y' float"):
            verify(wrong, wrong, run=False)
