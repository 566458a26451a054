"""A certificate holds for what it was written of, and for nothing else."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from helpers import model_of
from networks import MODELS
from onnx import numpy_helper

import bnfold
from bnfold.commands import program
from bnfold.folding import plan
from bnfold.model_io import load

MODEL = MODELS / "digits_resnet.onnx"


def run(*arguments):
    return CliRunner().invoke(program, [str(argument) for argument in arguments], prog_name="bnfold")


def check(certificate, *arguments):
    return run("verify", "--certificate", certificate, *arguments)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with a model, its fold, and the certificate."""
    folder = tmp_path_factory.mktemp("certified")
    shutil.copy(MODEL, folder / "net.onnx")
    certify(folder)
    return folder


def certify(folder, *options):
    names = folder / "net.onnx", "-o", folder / "out.onnx", "--certificate", folder / "out.json"
    result = run("optimize", *names, "--quiet", *options)
    assert result.exit_code == 0, result.output


@pytest.fixture
def folder(original, tmp_path):
    """A copy of it that may be spoilt."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def record(folder):
    return json.loads((folder / "out.json").read_text())


def forge(folder, change):
    content = record(folder)
    change(content)
    (folder / "out.json").write_text(json.dumps(content))


def own_hash(folder):
    """Makes the record name AFTER as it is now."""
    digest = hashlib.sha256((folder / "out.onnx").read_bytes()).hexdigest()
    forge(folder, lambda content: content["after"]["file"].update(sha256=digest))


def change_after(folder, change):
    model = onnx.load(folder / "out.onnx")
    change(model)
    onnx.save(model, folder / "out.onnx")
    own_hash(folder)


# --- it holds ------------------------------------------------------------------------------------------------


def test_it_holds(folder):
    """Folding again gives AFTER bit for bit, and verifying again gives the same verdict."""
    result = check(folder / "out.json")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("the certificate holds: AFTER is bit for bit what folding makes of BEFORE, 16 ")
    assert "verified again: equivalent: 8 of 8 changed regions equal" in result.stdout


def test_static_runs_nothing(folder, monkeypatch):
    """With --static, nothing is evaluated."""
    monkeypatch.setattr("bnfold.certificate.check.verify", None)
    result = check(folder / "out.json", "--static")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip().endswith("nothing was run")


def test_json(folder):
    """The result as JSON."""
    content = json.loads(check(folder / "out.json", "--static", "--format", "json").stdout)
    assert content["holds"]
    assert content["findings"] == []
    assert content["largest_ulp"] <= 0.5


def test_what_it_says(folder):
    """Files, versions, seed, folds with rules and errors, noise floors and tolerances, regions, verdicts."""
    content = record(folder)
    for which, name in (("before", "net.onnx"), ("after", "out.onnx")):
        data = (folder / name).read_bytes()
        assert content[which]["file"] == {"path": name, "sha256": hashlib.sha256(data).hexdigest(), "nbytes": len(data)}
    assert set(content["versions"]) == {"bnfold", "onnx", "onnxruntime", "numpy"}
    assert content["options"]["seed"] == 0
    (output,) = content["verification"]["outputs"]
    assert output["tolerance"] > output["floor"] > 0
    assert {region["outcome"] for region in content["verification"]["regions"]} == {"equal"}
    assert content["verification"]["verdict"] == "equivalent"
    written = {parameter["name"]: parameter["ulp"] for parameter in content["parameters"]}
    assert max(written.values()) == content["static"]["largest_ulp"] <= 0.5
    assert {name for entry in content["entries"] for name in entry["parameters"]} == set(written)
    itself, taker = content["entries"][0]["conditions"]
    assert itself["equation"].startswith("BN(x) = g x + (beta - mean g)")
    assert (taker["rule"], taker["ability"]) == ("bnfold.ops.linear.conv_absorbs_output", "took in what follows it")
    assert taker["equation"] == "s(W*x + b) + t = (sW)*x + (sb + t)"


def test_it_can_be_moved(folder, tmp_path):
    """Paths are relative to the record, so a folder can be moved; or the files are named."""
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.copy(folder / "out.json", tmp_path / "elsewhere" / "out.json")
    assert check(moved, "--static").exit_code == 2
    assert check(moved, "--static", folder / "net.onnx", folder / "out.onnx").exit_code == 0
    folder.rename(tmp_path / "moved")
    assert check(tmp_path / "moved" / "out.json", "--static").exit_code == 0


def test_same_bytes(folder):
    """The same input gives the same certificate."""
    first = (folder / "out.json").read_bytes()
    certify(folder)
    assert (folder / "out.json").read_bytes() == first


def test_options_are_kept(folder):
    """What the fold was asked for is asked for again."""
    certify(folder, "--keep", "/0/*", "--leftover", "affine", "--max-growth", "7", "--no-verify")
    assert record(folder)["options"]["max_growth"] == 7
    assert record(folder)["options"]["leftover"] == "affine"
    assert record(folder)["options"]["fold_norms"] is False
    assert record(folder)["verification"] is None
    result = check(folder / "out.json")
    assert result.exit_code == 0, result.output


def test_nothing_to_fold(tmp_path):
    """Then the output is the input, and that is certified."""
    (tmp_path / "net.onnx").write_bytes(onnx.parser.parse_model(PLAIN).SerializeToString())
    certify(tmp_path)
    assert check(tmp_path / "out.json").exit_code == 0


PLAIN = '<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => (float[1, 2] y) { y = Relu (x) }'


def test_data_files(tmp_path):
    """Data files are hashed too."""
    model = onnx.load(MODEL)
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    certify(tmp_path)
    assert [file["path"] for file in record(tmp_path)["before"]["data"]] == ["net.data"]
    assert check(tmp_path / "out.json", "--static").exit_code == 0
    (data,) = tmp_path.glob("out-*.data")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    result = check(tmp_path / "out.json", "--static")
    assert result.exit_code == 2
    assert "a data file of folded model has changed" in result.stderr


# --- every parameter is the nearest number -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float", "float16", "bfloat16", "double"])
@pytest.mark.parametrize(
    "body",
    [
        "c = Conv (x, {w: 6, 4, 3, 3}, {b: 6})\n r = Relu (c)\n y = BatchNormalization (r, {bn: 6})",
        "a = BatchNormalization (x, {bn2: 4})\n c = Conv (a, {w: 6, 4, 3, 3})\n y = BatchNormalization (c, {bn: 6})",
        "c = ConvTranspose <group = 2> (x, {w: 4, 3, 2, 2})\n y = BatchNormalization (c, {bn: 6})",
    ],
)
def test_half_an_ulp(tmp_path, dtype, body):
    """In every type, whatever a parameter was made of."""
    text = f'<ir_version: 10, opset_import: ["": 22]> g (T[1, 4, 8, 8] x) => (T[N, M, K, L] y) {{ {body} }}'
    (tmp_path / "net.onnx").write_bytes(model_of(text, dtype).SerializeToString())
    certify(tmp_path, "--no-verify")
    parameters = record(tmp_path)["parameters"]
    assert all(parameter["ulp"] <= parameter["limit"] == 0.5 for parameter in parameters)
    assert check(tmp_path / "out.json").exit_code == 0


def test_a_wrong_number_is_far():
    """The measure of the error is right: it sees a neighbour, one of the least numbers, and an infinity."""
    from bnfold.certificate.exactness import largest_error  # noqa: PLC0415 -- bnfold.certificate is not for users

    class Wrong:
        def __init__(self, written, exact):
            self.written, self.exact = np.asarray(written, np.float32), np.asarray(exact, np.float64)

        def array(self):
            return self.written

        def float64(self):
            return self.exact

    one, least = np.float32(1), np.float32(1e-45)
    assert largest_error(Wrong([1, 2], [1, 2])) == 0
    assert largest_error(Wrong([np.nextafter(one, 2 * one)], [1])) == 1
    assert largest_error(Wrong([np.nextafter(one, 0 * one)], [1])) == 0.5  # below a power of two they stand closer
    assert largest_error(Wrong([least], [float(least) / 2])) == 0.5
    assert largest_error(Wrong([least], [0])) == 1
    assert largest_error(Wrong([np.inf], [1e300])) == np.inf
    assert largest_error(Wrong([np.nan, np.inf], [np.nan, np.inf])) == 0


def test_passing_is_recorded(tmp_path):
    """Every operator that an affine passed is there, with its equation and the signs of the scales."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1, 4, 8, 8] x) => (float[N, M, K, L] y) {
        c = Conv (x, {w: 6, 4, 3, 3})
        r = Relu (c)
        p = MaxPool <kernel_shape = [2, 2]> (r)
        y = Mul (p, {s: 6, 1, 1 positive}) }"""
    (tmp_path / "net.onnx").write_bytes(model_of(text).SerializeToString())
    certify(tmp_path)
    (entry,) = record(tmp_path)["entries"]
    assert [answer["op_type"] for answer in entry["conditions"]] == ["Mul", "MaxPool", "Relu", "Conv"]
    assert all(answer["equation"] and answer["rule"] and answer["scale"][0] > 0 for answer in entry["conditions"])


# --- it does not hold (exit 1) -------------------------------------------------------------------------------


def first_weight(model):
    return next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)


def one_ulp(model):
    tensor = first_weight(model)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[5] = np.nextafter(values.flat[5], np.float32(np.inf))
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def other_pads(model):
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    next(attribute for attribute in conv.attribute if attribute.name == "pads").ints[0] += 1


def one_more(model):
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "one_more"))


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (one_ulp, "1 of 144 numbers differ, the first at 5"),
        (other_pads, "the graph of AFTER is not the one"),
        (one_more, "AFTER has other tensors"),
    ],
    ids=["weight", "graph", "tensors"],
)
def test_another_after(folder, change, finding):
    """A file that is not the fold is found, even if the record was made to name it."""
    change_after(folder, change)
    result = check(folder / "out.json", "--static")
    assert result.exit_code == 1, result.output
    assert finding in result.stdout


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda content: content["parameters"][0].update(ulp=0.1), "0.1 ULP are recorded"),
        (lambda content: content["parameters"].pop(), "other parameters than folding writes"),
        (lambda content: content["entries"].pop(), "affine nodes are recorded"),
        (lambda content: content["entries"][0].update(into=["nowhere"]), "the record has another into"),
        (lambda content: content["entries"][0]["conditions"][1].update(axes=[0]), "the record has another conditions"),
        (lambda content: content["verification"].update(verdict="different"), "itself says that the models are diff"),
    ],
)
def test_forged_records(folder, change, finding):
    """What the record says is checked, not believed."""
    forge(folder, change)
    result = check(folder / "out.json", "--static")
    assert result.exit_code == 1, result.output
    assert finding in result.stdout


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda found: found.update(verdict="not verified"), "'not verified' is recorded"),
        (lambda found: found["regions"].pop(), "are others than those recorded"),
        (lambda found: found.update(complete=False), "whether every region was evaluated"),
    ],
)
def test_forged_verdicts(folder, change, finding):
    """So is what it says of the verification."""
    forge(folder, lambda content: change(content["verification"]))
    assert check(folder / "out.json", "--static").exit_code == 0
    result = check(folder / "out.json")
    assert result.exit_code == 1, result.output
    assert finding in result.stdout


def test_other_versions_are_named(folder):
    """Where something does not agree, the versions may be why."""
    forge(folder, lambda content: (content["entries"].pop(), content["versions"].update(bnfold="0.0.1")))
    assert "versions differ: bnfold 0.0.1 then" in check(folder / "out.json", "--static").stdout


# --- it is refused (exit 2, one line) ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["net.onnx", "out.onnx"])
def test_changed_files(folder, name):
    """A file that is not the one that was certified."""
    with open(folder / name, "ab") as stream:
        stream.write(b"\x3a\x00")  # an empty message more: it still loads
    refused(check(folder / "out.json"), "its content has changed")


@pytest.mark.parametrize("name", ["net.onnx", "out.onnx"])
def test_missing_files(folder, name):
    """A file that is gone."""
    (folder / name).unlink()
    refused(check(folder / "out.json"), "is not there")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "the record is list, not dict"),
        ("{}", "its kind is not"),
        ('{"kind": "bnfold certificate", "schema": 2}', "this version reads schema 1"),
        ('{"kind": "bnfold certificate", "schema": 1}', "'verification' is missing"),
    ],
    ids=["empty", "deep", "list", "kind", "schema", "fields"],
)
def test_no_certificates(tmp_path, text, message):
    """Something else in the place of a certificate."""
    (tmp_path / "out.json").write_text(text)
    refused(check(tmp_path / "out.json"), message)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(parameters={}),
        lambda content: content["parameters"][0].update(ulp="none"),
        lambda content: content["parameters"][0].update(shape=[True]),
        lambda content: content["before"].update(file=None),
        lambda content: content["options"].update(leftover="nonsense"),
        lambda content: content["verification"].pop("regions"),
        lambda content: content["after"]["file"].update(path=""),
    ],
)
def test_malformed_records(folder, change):
    """A field that is missing or of another type."""
    forge(folder, change)
    refused(check(folder / "out.json"), "is no certificate")


def refused(result, message):
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("bnfold: ")


def test_missing_record(tmp_path):
    """No file at all, or a folder."""
    refused(check(tmp_path / "none.json"), "No such file")
    refused(check(tmp_path), "is not a regular file")


@pytest.mark.parametrize("options", [["--seed", "1"], ["--no-run"], ["--rtol", "1"]])
def test_options_of_the_record(folder, options):
    """What the record says itself cannot be said."""
    assert check(folder / "out.json", *options).exit_code == 2


def test_what_verify_needs():
    """Two models or a certificate."""
    assert run("verify").exit_code == 2
    assert run("verify", MODEL, MODEL, "--static").exit_code == 2


# --- what cannot be certified --------------------------------------------------------------------------------


def test_two_files_are_needed(folder):
    """Not in place, not in memory, not of what is calibrated first, not over the model or the output."""
    before, certificate = folder / "net.onnx", folder / "new.json"
    with pytest.raises(bnfold.ModelError, match="in place"):
        bnfold.optimize(before, in_place=True, certificate=certificate)
    with pytest.raises(bnfold.ModelError, match="two files"):
        bnfold.optimize(onnx.load(before), certificate=certificate)
    with pytest.raises(bnfold.ModelError, match="knows nothing of data: calibrate first, into a file of its own"):
        bnfold.optimize(before, folder / "out.onnx", calibrate=MODELS / "digits_train.npz", certificate=certificate)
    with pytest.raises(bnfold.ModelError, match="is a model, data or another output itself"):
        bnfold.optimize(before, folder / "out.onnx", certificate=before)
    with pytest.raises(bnfold.ModelError, match="there is no folder"):
        bnfold.optimize(before, folder / "out.onnx", certificate=folder / "none" / "out.json")
    assert not certificate.exists()
    assert plan(load(before)).changes


def test_no_certificate_of_what_is_not_written(folder, monkeypatch):
    """If the fold is refused, there is no certificate of it; one that was there stays."""
    different = bnfold.Verification(bnfold.Verdict.DIFFERENT)
    monkeypatch.setattr("bnfold.verification.verify", lambda *args, **options: different)
    before = (folder / "out.json").read_bytes()
    with pytest.raises(bnfold.NotEquivalent):
        bnfold.optimize(folder / "net.onnx", folder / "out.onnx", certificate=folder / "out.json")
    assert (folder / "out.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["net.onnx", "out.json", "out.onnx"]


def test_in_python(folder):
    """The same as a verb."""
    result = bnfold.verify_certificate(folder / "out.json", static=True)
    assert result.holds
    assert result.verification is None


def test_no_time_is_no_finding(folder):
    """What could not be folded once more in time is not said to be another fold."""
    result = run("verify", "--certificate", folder / "out.json", "--static", "--timeout", 1e-6)
    assert result.exit_code == 1
    assert result.stderr == "bnfold: not enough time (--timeout)\n"


def test_stated_sizes_are_kept(tmp_path):
    """A fold that rests on them is planned and verified for them again."""
    model = model_of("""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 3, H, W] x) => (float[N, 4] y) <int64[2] axes = {2, 3}> {
            r = Relu (x)
            b = BatchNormalization (r, {bn: 3})
            s = ReduceSum <keepdims = 0> (b, axes)
            y = Gemm (s, {w: 3, 4}, {c: 4})
        }""")
    onnx.save(model, tmp_path / "net.onnx")
    certify(tmp_path, "--shape", "x=2,3,16,8", "--dim", "N=2")
    assert record(tmp_path)["entries"][0]["assumes"] == {"x": [2, 3, 16, 8]}
    assert check(tmp_path / "out.json").exit_code == 0
    forge(tmp_path, lambda content: content["options"].update(shapes={}))
    assert check(tmp_path / "out.json").exit_code == 1


def test_norms_are_folded_again(tmp_path):
    """As they were asked for."""
    body = "n = LayerNormalization (x, {g: 8}, {b: 8}) m = MatMul (n, {w: 8, 8}) y = Add (m, {c: 8})"
    header = '<ir_version: 10, opset_import: ["": 17]> g (float[2, 3, 8] x) => (float[2, 3, 8] y)'
    onnx.save(model_of(f"{header} {{ {body} }}"), tmp_path / "net.onnx")
    certify(tmp_path, "--fold-norms")
    (entry,) = [entry for entry in record(tmp_path)["entries"] if entry["outcome"] == "cleared"]
    assert "layer_sheds" in entry["conditions"][0]["rule"]
    assert check(tmp_path / "out.json").exit_code == 0
    forge(tmp_path, lambda content: content["options"].update(fold_norms=False))
    assert check(tmp_path / "out.json").exit_code == 1
