"""The schemas describe what is printed: all of it, and nothing else.

`python tests/schemas/test_schemas.py` writes docs/schemas/ anew.
"""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from helpers import model_of
from jsonschema import Draft202012Validator
from networks import MODELS, ROOT

import bnfold
from bnfold.certificate import record
from bnfold.commands import program
from bnfold.escape import as_json
from bnfold.folding.record import Outcome
from bnfold.page.schema import SCHEMA
from bnfold.schemas import SCHEMAS
from bnfold.verification import Verdict
from bnfold.verification.result import Outcome as OfRegion

DATA = "--data", MODELS / "digits_test.npz", "--max-samples", 64
RESNET, MLP, PREACT = (MODELS / f"{name}.onnx" for name in ("digits_resnet", "digits_mlp", "digits_preact"))
TRAINING = MODELS / "digits_mlp.train.onnx"
FILES = {f"{schema['$id'].rpartition('/')[2]}": f"{as_json(schema)}\n" for schema in SCHEMAS.values()}


def different(folder: Path) -> Path:
    """A model that computes something else."""
    model = onnx.load(RESNET)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weight), weight.name))
    onnx.save(model, folder / "wrong.onnx")
    return folder / "wrong.onnx"


def folded(folder: Path) -> Path:
    """A model without BatchNormalizations, whose layers have twins in the one that it was."""
    onnx.save(bnfold.fold(RESNET), folder / "folded.onnx")
    return folder / "folded.onnx"


def unlike(folder: Path) -> Path:
    """A model of which nothing can be made: its operator is of nobody."""
    model = onnx.load(RESNET)
    model.opset_import.add(domain="of.nobody", version=1)
    model.graph.node[-1].domain = "of.nobody"
    onnx.save(model, folder / "unknown.onnx")
    return folder / "unknown.onnx"


CASES = {
    "folded": ("models", 0, lambda to: ["optimize", RESNET, "-o", to / "o"]),
    "reduced": ("models", 0, lambda to: ["optimize", PREACT, "-o", to / "o"]),
    "replaced": ("models", 0, lambda to: ["optimize", PREACT, "-o", to / "o", "--leftover", "affine"]),
    "kept": ("models", 0, lambda to: ["optimize", RESNET, "-o", to / "o", "--keep", "*", "--no-verify"]),
    "spelt-out": ("models", 1, lambda to: ["check", MODELS / "digits_resnet.decomposed.onnx"]),
    "not-verified": ("models", 0, lambda to: ["optimize", unlike(to), "-o", to / "o"]),
    "calibrated": ("models", 0, lambda to: ["optimize", TRAINING, "-o", to / "o", "--calibrate", *DATA[1:]]),
    "not-written": ("models", 1, lambda to: ["optimize", TRAINING, "-o", to / "o", "--require-none"]),
    "diff": ("models", 0, lambda to: ["optimize", RESNET, "-o", to / "o", "--dry-run", "--diff"]),
    "many": ("models", 2, lambda to: ["optimize", RESNET, MLP, to / "gone", "--output-dir", to / "d"]),
    "norms": ("models", 0, lambda to: ["optimize", normed(to), "-o", to / "o", "--fold-norms"]),
    "stated": ("models", 1, lambda to: ["check", summed(to), "--dim", "H=5"]),
    "asked": ("models", 1, lambda to: ["check", PREACT, "--node", "/4/4.0/*"]),
    "checked": ("models", 2, lambda to: ["check", RESNET, PREACT, TRAINING, to / "gone"]),
    "equivalent": ("verification", 0, lambda to: ["verify", RESNET, RESNET, "--layers"]),
    "different": ("verification", 1, lambda to: ["verify", RESNET, different(to), "--layers"]),
    "not-run": ("verification", 0, lambda to: ["verify", RESNET, RESNET, "--no-run"]),
    "calibrate": ("calibration", 0, lambda to: ["calibrate", TRAINING, *DATA, "-o", to / "o"]),
    "calibrate-unchecked": ("calibration", 0, lambda to: ["calibrate", MLP, *DATA, "-o", to / "o", "--no-check"]),
    "reference": ("reference", 0, lambda to: ["calibrate", folded(to), "--reference", RESNET, *DATA, "-o", to / "r"]),
    "drift": ("drift", 0, lambda to: ["drift", MLP, *DATA]),
    "drift-of-one": ("drift", 0, lambda to: ["drift", MLP, "--data", MODELS / "digits_test.npz", "--max-samples", 1]),
}
"""What is run, what it prints, and its exit code."""


def saved(folder: Path, text: str) -> Path:
    onnx.save(model_of(f'<ir_version: 10, opset_import: ["": 17]> g {text}'), folder / "made.onnx")
    return folder / "made.onnx"


def normed(folder: Path) -> Path:
    """One norm gives its scale away, and one does not."""
    body = (
        "n = LayerNormalization (x, {g: 8}) m = MatMul (n, {w: 8, 8}) r = Relu (m) y = LayerNormalization (r, {h: 8})"
    )
    return saved(folder, f"(float[2, 8] x) => (float[2, 8] y) {{ {body} }}")


def summed(folder: Path) -> Path:
    """A fold that needs a size."""
    body = "b = BatchNormalization (x, {bn: 3}) s = ReduceSum <keepdims = 0> (b, a) y = Gemm (s, {w: 3, 4}, {c: 4})"
    return saved(folder, f"(float[N, 3, H] x) => (float[N, 4] y) <int64[1] a = {{2}}> {{ {body} }}")


def printed(arguments: list[object], code: int) -> object:
    done = CliRunner().invoke(program, [*map(str, arguments), "--format", "json"], prog_name="bnfold")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def strict(schema: object) -> object:
    """The schema as it is here and now: whoever adds a key to a document has to declare it."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    return {**closed, "additionalProperties": False} if "required" in schema else closed


def complaints(kind: str, document: object) -> list[str]:
    validator = Draft202012Validator(strict(SCHEMAS[kind]))
    return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(document)]


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> dict[str, tuple[str, object]]:
    """What every case prints, once for all tests."""
    found = {}
    for name, (kind, code, arguments) in CASES.items():
        found[name] = kind, printed(arguments(tmp_path_factory.mktemp(name)), code)
    folder = tmp_path_factory.mktemp("certificate")
    written = ["-o", folder / "o.onnx", "--certificate", folder / "c.json"]
    printed(["optimize", RESNET, *written], 0)
    found["certificate"] = "certificate", printed(["verify", "--certificate", folder / "c.json"], 0)
    found["static"] = "certificate", printed(["verify", "--certificate", folder / "c.json", "--static"], 0)
    found["record"] = "record", json.loads((folder / "c.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", [*CASES, "certificate", "static", "record"])
def test_what_is_printed_fits(name, documents):
    """Every key is declared, and of its type."""
    assert complaints(*documents[name]) == []


def mutilated(document: object) -> Iterator[tuple[str, object]]:
    """The document without each of its keys in turn, and with each value of another type; of a list, in its first."""

    def places(value: object, path: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield (*path, key)
                yield from places(inner, (*path, key))
        elif isinstance(value, list) and value:
            yield from places(value[0], (*path, 0))

    for *above, key in places(document, ()):
        for change in ("gone", "other"):
            other = copy.deepcopy(document)
            inner = other
            for step in above:
                inner = inner[step]
            if change == "gone":
                del inner[key]
            else:
                inner[key] = [{"of another": "type"}] if not isinstance(inner[key], list) else "of another type"
            yield f"{change}: {'.'.join(map(str, [*above, key]))}", other


FREE = re.compile(
    r"gone: .*\.(renamed|copied|facts|versions|operators|shapes|dims)\..*(?<!before)(?<!after)$|gone: versions\."
    r"|gone: .*\.(operators|parameters|macs)$|other: .*\.facts\..*"
)
"""Keys that are names, or that need not be there; and facts, whose types are those of their reason."""


@pytest.mark.parametrize(
    "name", ["reduced", "calibrated", "checked", "different", "calibrate", "drift", "static", "record"]
)
def test_what_is_mutilated_does_not_fit(name, documents):
    """A key that is missing, or a value of another type, is noticed wherever it stands."""
    kind, document = documents[name]
    validator = Draft202012Validator(SCHEMAS[kind])
    unnoticed = [what for what, other in mutilated(document) if validator.is_valid(other) and not FREE.match(what)]
    assert unnoticed == []


@pytest.mark.parametrize("kind", SCHEMAS)
def test_schemas_are_schemas(kind):
    """By their own schema, with the number of their kind."""
    Draft202012Validator.check_schema(SCHEMAS[kind])
    number = SCHEMA.get(kind, record.SCHEMA)
    assert SCHEMAS[kind]["properties"]["schema"]["const"] == number
    assert SCHEMAS[kind]["$id"].endswith(f"/docs/schemas/{kind}-{number}.json")


def test_every_kind_of_document_has_a_schema():
    """And a certificate, which has a number of its own."""
    assert set(SCHEMAS) == {*SCHEMA, "record"}


def test_words_are_those_of_the_code():
    """Every outcome and verdict is one that the schema knows."""
    text = json.dumps(list(SCHEMAS.values()))
    for words in (Outcome, Verdict, OfRegion):
        assert json.dumps({"enum": [word.value for word in words]})[1:-1] in text


def test_docs_have_the_schemas():
    """As files, by which editors and other programs find them; those of older numbers stay."""
    found = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs/schemas").glob("*.json")}
    assert {name: found.get(name) for name in FILES} == FILES


def keys_of(schema: object) -> Iterator[str]:
    """All keys that a schema declares, wherever they stand."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for inner in schema.values():
            yield from keys_of(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from keys_of(inner)


@pytest.mark.parametrize("kind", [kind for kind in SCHEMAS if kind != "record"])  # which verification.md is about
def test_docs_know_every_key(kind):
    """docs/json.md says what each is, and links to the schema."""
    page = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    assert sorted({key for key in keys_of(SCHEMAS[kind]) if f"`{key}`" not in page}) == []
    assert f"schemas/{kind}-{SCHEMA[kind]}.json" in page


def test_docs_know_no_other_key():
    """What stands in the first column of a table is declared."""
    page = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*`) \|", page, re.MULTILINE)
    told = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert told - {key for schema in SCHEMAS.values() for key in keys_of(schema)} - set(SCHEMAS) == set()


def test_the_command_prints_them():
    """Each by its kind; without one, all kinds with what prints such a document."""
    run = CliRunner()
    for kind, schema in SCHEMAS.items():
        assert json.loads(run.invoke(program, ["schema", kind]).stdout) == schema
    assert [line.split()[0] for line in run.invoke(program, ["schema"]).stdout.splitlines()] == list(SCHEMAS)
    assert run.invoke(program, ["schema", "nothing"]).exit_code == 2


if __name__ == "__main__":
    for name, text in FILES.items():
        (ROOT / "docs/schemas" / name).write_text(text, encoding="utf-8")
