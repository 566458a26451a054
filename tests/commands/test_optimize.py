"""`bnfold optimize`."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.model_io import Temporary
from bnfold.optimization import pipeline

NOT_FOR_THE_SUPERUSER = pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")


@pytest.fixture
def verdict(monkeypatch):
    """Makes verification answer what it is told, and notes what it was asked."""
    asked = {}

    def answer(verdict: bnfold.Verdict) -> dict[str, object]:
        def compare(before: object, after: object, **options: object) -> bnfold.Verification:
            asked.update(before=before, after=after, **options)
            return bnfold.Verification(verdict, reasons=("it was told to",))

        monkeypatch.setattr("bnfold.verification.verify", compare)
        return asked

    return answer


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_verified_by_default(run, model, batchnorms):
    """The folded model stands beside the original, and the report says that they are equivalent."""
    result = run("optimize", model)
    assert (result.exit_code, result.stderr) == (0, "")
    first, *_, last = result.stdout.splitlines()
    assert first == f"OK  {model}  1 of 1 BatchNormalization folded, verified"
    assert "\nverified equivalent: " in result.stdout
    assert last == f"written to {model.with_name('net.folded.onnx')}"
    assert batchnorms(model.with_name("net.folded.onnx")) == 0
    assert batchnorms(model) == 1


def test_a_pattern_that_matches_nothing(run, model):
    """Nothing is written, not even if nothing would fold."""
    for keep in (["--keep", "the_Conf"], ["--keep", "*", "--keep", "the_Conf"]):
        result = run("optimize", model, *keep)
        assert result.exit_code == 2
        assert result.stderr == f"bnfold: {model}: no node matches 'the_Conf'; near it: the_Conv\n"
    assert list(model.parent.iterdir()) == [model]


def test_default_output_is_never_overwritten(run, model):
    """The line says what to do; --force and an explicit output do overwrite."""
    there = model.with_name("net.folded.onnx")
    there.write_bytes(b"precious")
    result = run("optimize", model, "--no-verify")
    assert result.exit_code == 2
    hint = "--force (overwrite=True) replaces it, and -o OUT writes to another place"
    assert result.stderr == f"bnfold: {there}: already exists; {hint}\n"
    assert there.read_bytes() == b"precious"
    assert run("optimize", model, "--no-verify", "-o", there).exit_code == 0
    folded = there.read_bytes()
    there.write_bytes(b"precious")
    assert run("optimize", model, "--no-verify", "--force").exit_code == 0
    assert there.read_bytes() == folded


def test_in_place(run, model, batchnorms):
    """Nothing but the model is left in the folder."""
    assert run("optimize", model, "--no-verify", "--in-place").exit_code == 0
    assert batchnorms(model) == 0
    assert list(files(model.parent)) == [model.name]


def test_pipes(run, model, batchnorms):
    """The model comes on standard output, so the report goes to standard error."""
    result = run("optimize", "-", "--no-verify", stdin=model.read_bytes())
    assert result.exit_code == 0
    assert batchnorms(result.stdout_bytes) == 0
    assert "1 of 1 BatchNormalization folded" in result.stderr
    assert run("optimize", model, "-o", "-", "-q", "--no-verify").stdout_bytes == result.stdout_bytes
    assert run("optimize", model, "--no-verify", "-o", model.with_name("out.onnx")).exit_code == 0
    assert model.with_name("out.onnx").read_bytes() == result.stdout_bytes


def test_same_bytes_if_nothing_folds(run, model):
    """A model with nothing to fold is copied as it is."""
    before = model.read_bytes()
    result = run("optimize", model, "--keep", "the_*")
    assert result.exit_code == 0
    assert "KEPT_BY_NAME" in result.stdout
    assert result.stdout.startswith(f"NOTHING  {model}  0 of 1 BatchNormalization folded, unchanged\n")
    assert model.with_name("net.folded.onnx").read_bytes() == before


def test_in_place_with_nothing_to_do_touches_nothing(run, model):
    """The file keeps its inode."""
    before = model.stat().st_ino
    assert run("optimize", model, "--in-place", "--keep", "*").exit_code == 0
    assert model.stat().st_ino == before


def test_in_place_with_nothing_to_do_sweeps_too(run, model):
    """The run before may have been killed when all was done but tidying up."""
    left = Temporary(model.parent)
    left.path(".data").touch()
    left._lock.close()  # as the end of its process does
    assert run("optimize", model, "--in-place", "--keep", "*").exit_code == 0
    assert list(files(model.parent)) == [model.name]


@pytest.mark.parametrize("options", [["--no-verify"], ["--no-verify", "-o", "-"], ["--no-verify", "--in-place"]])
def test_a_model_that_changes_meanwhile_is_refused(run, model, monkeypatch, options):
    """Else the statistics of one model would be folded into the weights of another."""
    plan = pipeline.plan

    def slow(*args, **kwargs):
        planned = plan(*args, **kwargs)
        model.write_bytes(model.read_bytes())
        os.utime(model, ns=(0, 0))
        return planned

    monkeypatch.setattr(pipeline, "plan", slow)
    before = files(model.parent)
    result = run("optimize", *options, model)
    assert (result.exit_code, result.stderr) == (2, f"bnfold: {model}: was changed while it was in use\n")
    assert files(model.parent) == before


@pytest.mark.parametrize(
    "options", [[], ["--verify"], ["--verify=auto"], ["--verify", "auto"], ["--no-verify", "--verify"]]
)
def test_different_is_not_written(options, run, model, verdict):
    """A fold that changes the model leaves no file, and exit code 1."""
    verdict(bnfold.Verdict.DIFFERENT)
    before = files(model.parent)
    result = run("optimize", *options, model)
    assert result.exit_code == 1
    assert result.stderr == f"bnfold: {model}: not written: different: it was told to\n"
    assert "written to" not in result.stdout
    assert files(model.parent) == before


@pytest.mark.parametrize("options", [["--verify=require"], ["--verify", "require"]])
def test_not_run_is_an_error_if_required(options, run, model, verdict):
    """So is a model that nothing can run, if verification is required."""
    verdict(bnfold.Verdict.NOT_VERIFIED)
    before = files(model.parent)
    result = run("optimize", model, *options)
    assert result.exit_code == 1
    assert "not verified" in result.stderr
    assert files(model.parent) == before


def test_not_run_is_said(run, model, verdict):
    """By default such a model is written, and the report says what was not done."""
    verdict(bnfold.Verdict.NOT_VERIFIED)
    result = run("optimize", model)
    assert result.exit_code == 0
    assert "\nnot verified: it was told to\n" in result.stdout


@pytest.mark.parametrize("options", [["--no-verify"], ["--verify=off"], ["--verify=require", "--no-verify"]])
def test_no_verify(options, run, model, verdict):
    """Nothing is compared, and the report says so."""
    asked = verdict(bnfold.Verdict.DIFFERENT)
    result = run("optimize", model, *options)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"UNVERIFIED  {model}  1 of 1 BatchNormalization folded, not verified"
    assert not asked


def test_shapes_and_dims_reach_the_verification(run, model, verdict):
    """Names may hold equal signs."""
    onnx.save(renamed(onnx.load(model), "x", "a=b", ("batch", 2, "H", 6)), model)
    asked = verdict(bnfold.Verdict.EQUIVALENT)
    run("optimize", model, "--shape", "a=b=1,2,6,6", "--dim", "batch=1")
    assert asked["shapes"] == {"a=b": (1, 2, 6, 6)}
    assert asked["dims"] == {"batch": 1}


def renamed(proto, old, new, shape):
    proto.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info(new, onnx.TensorProto.FLOAT, shape))
    for node in proto.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    return proto


@pytest.mark.parametrize("option", [["--shape", "x=1,3,6,6"], ["--shape", "z=1"], ["--dim", "n=1"]])
def test_sizes_that_do_not_fit_are_errors(option, run, model):
    """Whether anything would be compared or not; of each model in `check`."""
    for verb in (["optimize", "--no-verify"], ["check"]):
        result = run(*verb, model, *option)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"bnfold: {model}: ")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("option", [["--shape", "x"], ["--shape", "x=1,a"], ["--dim", "n=-1"], ["--dim", "=3"]])
def test_malformed_sizes_are_usage_errors(option, run, model):
    """The message shows the form that was expected."""
    result = run("optimize", model, *option)
    assert result.exit_code == 2
    assert "is not of the form NAME=" in result.stderr


def test_json(run, model):
    """Standard output is one JSON document."""
    result = run("optimize", model, "--format", "json")
    document = json.loads(result.stdout)
    (entry,) = document["models"]
    assert entry["output"] == str(model.with_name("net.folded.onnx"))
    assert entry["verification"]["verdict"] == "equivalent"
    assert entry["nodes"] == {"before": 3, "after": 2}


def test_quiet(run, model):
    """A script that wants only the exit code gets only that."""
    result = run("optimize", model, "-q")
    assert (result.exit_code, result.output) == (0, "")


def truncated(folder: Path, model: Path) -> Path:
    path = folder / "truncated.onnx"
    path.write_bytes(model.read_bytes()[:-40])
    return path


def written(content: bytes) -> Callable[[Path, Path], Path]:
    def make(folder: Path, _model: Path) -> Path:
        path = folder / "bad.onnx"
        path.write_bytes(content)
        return path

    return make


def missing_data(folder: Path, model: Path) -> Path:
    path = folder / "external.onnx"
    onnx.save(onnx.load(model), path, save_as_external_data=True, location="weights.data", size_threshold=0)
    (folder / "weights.data").unlink()
    return path


@pytest.mark.parametrize("command", ["optimize", "check"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda folder, _: folder / "absent.onnx", "No such file or directory", id="no-such-file"),
        pytest.param(lambda folder, _: folder, "is a folder", id="folder"),
        pytest.param(written(b""), "empty", id="empty"),
        pytest.param(written(b"this is a text file, not a model\n"), "not an ONNX model", id="not-protobuf"),
        pytest.param(truncated, "truncated", id="truncated"),
        pytest.param(written(onnx.ModelProto(ir_version=8).SerializeToString()), "graph", id="no-graph"),
        pytest.param(missing_data, "weights.data", id="missing-data"),
    ],
)
def test_bad_model(command, make, words, run, model, tmp_path):
    """One line that names the file and what is wrong with it; nothing is written."""
    bad = make(tmp_path, model)
    before = files(tmp_path)
    result = run(command, bad)
    assert (result.exit_code, result.stdout.strip()) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"bnfold: {bad}: ")
    assert words in line
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("output", "words"),
    [
        pytest.param("absent/out.onnx", "there is no folder", id="no-folder"),
        pytest.param("net.onnx/out.onnx", "there is no folder", id="file-as-folder"),
        pytest.param("", "is a folder", id="folder"),
        pytest.param("net.onnx", "is the input itself", id="input"),
        pytest.param("locked/out.onnx", "not writable", id="unwritable", marks=NOT_FOR_THE_SUPERUSER),
    ],
)
def test_bad_output(output, words, run, model, tmp_path):
    """One line that names the output and what is wrong with it; nothing is written."""
    (tmp_path / "locked").mkdir(mode=0o500)
    before = files(tmp_path)
    result = run("optimize", model, "--no-verify", "-o", tmp_path / output)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert words in line
    assert files(tmp_path) == before


def test_in_place_takes_no_output(run, model):
    """Two places to write to are one too many, and a pipe is no place."""
    assert run("optimize", model, "--in-place", "-o", "out.onnx").exit_code == 2
    assert run("optimize", "-", "--in-place", stdin=model.read_bytes()).exit_code == 2


def test_a_dry_run_writes_nothing(run, model, tmp_path):
    """It says what would be written, and verifies it."""
    before = files(tmp_path)
    for place in ([], ["--in-place"], ["-o", tmp_path / "out.onnx"]):
        result = run("optimize", model, "--dry-run", *place)
        assert (result.exit_code, result.stderr) == (0, "")
        first, *_, last = result.stdout.splitlines()
        assert first == f"OK  {model}  1 of 1 BatchNormalization would fold, verified"
        assert last == "nothing was written: --dry-run"
        assert files(tmp_path) == before


def test_a_dry_run_makes_no_folder(run, model, tmp_path):
    """Nor does it leave files of its own."""
    result = run("optimize", model, "--dry-run", "--no-verify", "--output-dir", tmp_path / "new")
    assert result.exit_code == 0
    assert "would fold, not verified\n" in result.stdout
    assert list(tmp_path.iterdir()) == [model]


def test_a_dry_run_to_a_pipe_leaves_it_empty(run, model):
    """The report is on standard error, as it would be."""
    result = run("optimize", model, "--dry-run", "-o", "-")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("OK  ")


def test_a_dry_run_ends_as_it_would(run, model, verdict, tmp_path):
    """Where the models differ, and where something stays; but that an output is taken is no matter."""
    there = model.with_name("net.folded.onnx")
    there.write_bytes(b"precious")
    assert run("optimize", model, "--dry-run", "--no-verify").exit_code == 0
    assert run("optimize", model, "--dry-run", "--force", "--require-none", "--keep", "*").exit_code == 1
    assert run("optimize", model, "--dry-run", "--force", "--certificate", tmp_path / "c.json").exit_code == 2
    verdict(bnfold.Verdict.DIFFERENT)
    result = run("optimize", model, "--dry-run", "--force", "--counterexample", tmp_path / "shown")
    assert result.exit_code == 1
    assert result.stdout.startswith("DIFFERENT  ")
    assert files(tmp_path) == {"net.onnx": model.read_bytes(), "net.folded.onnx": b"precious"}


def test_diff(run, model):
    """Node by node, in text and for programs; nothing of it unasked."""
    lines = run("optimize", model, "--dry-run", "--no-verify", "--diff").stdout.splitlines()
    begin = lines.index("  removed  the_BatchNormalization  BatchNormalization")
    assert lines[begin + 1 : begin + 5] == [
        "  changed  the_Conv                Conv",
        "      input 1: w → w_folded",
        "      input 2: nothing → the_Conv_bias",
        "      output 0: c → b",
    ]
    quick = ("optimize", model, "--dry-run", "--no-verify", "--format", "json")
    (asked,) = json.loads(run(*quick, "--diff").stdout)["models"]
    assert [(each["change"], each["node"]) for each in asked["diff"]] == [
        ("removed", "the_BatchNormalization"),
        ("changed", "the_Conv"),
    ]
    (unasked,) = json.loads(run(*quick).stdout)["models"]
    assert unasked["diff"] is None


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A model that folds, and for which no machine has the memory: it repeats something 16,000,000,000 times."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1, 3, 8, 8] x) => (float[1, 4, 1, 1] y) <int64[4] s = {1, 1, 64000, 64000}> {
          z = Conv (x, w)
          t = Tile (z, s)
          b = BatchNormalization (t, p, p, p, p)
          y = GlobalAveragePool (b)
        }""")
    arrays = {"w": np.ones((4, 3, 8, 8), np.float32), "p": np.ones(4, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    path = tmp_path / "huge.onnx"
    onnx.save(model, path)
    return path


def test_want_of_memory_is_no_verdict(run, huge):
    """By default the model is written, and the first line says that it is not verified."""
    result = run("optimize", huge, "--memory", "1")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith("UNVERIFIED  ")
    assert "\nnot verified: " in result.stdout
    assert huge.with_suffix(".folded.onnx").exists()


def test_want_of_memory_is_an_error_if_verification_is_required(run, huge):
    """Nothing is written then."""
    assert run("optimize", huge, "--memory", "1", "--verify=require").exit_code == 1
    assert list(huge.parent.iterdir()) == [huge]
