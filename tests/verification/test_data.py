"""`--data` in every form, on the models and the data that come with this project, and on inputs of every type."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from networks import MODELS
from onnx import numpy_helper

from bnfold import ModelError, Verdict, verify
from bnfold.commands import program

DIGITS = MODELS / "digits_mlp.onnx"
SAMPLES = 20


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    with np.load(MODELS / "digits_test.npz") as file:
        return file["image"][:SAMPLES]


@pytest.fixture
def folder(tmp_path: Path, images: np.ndarray) -> Path:
    """The same samples in every form."""
    np.save(tmp_path / "one.npy", images)
    np.save(tmp_path / "swapped.npy", images.astype(images.dtype.newbyteorder(">")))
    np.savez(tmp_path / "one.npz", image=images, labels=np.arange(SAMPLES))
    for number, part in enumerate(np.split(images, 2)):
        test = tmp_path / "sets" / f"test_data_set_{number}"
        test.mkdir(parents=True)
        (test / "input_0.pb").write_bytes(numpy_helper.from_array(part, "image").SerializeToString())
        (tmp_path / "parts").mkdir(exist_ok=True)
        np.save(tmp_path / "parts" / f"{number}.npy", part)
    (tmp_path / "script.py").write_text(
        "import numpy as np\nfrom pathlib import Path\nimages = np.load(Path(__file__).with_name('one.npy'))\n"
        "def arrays():\n    yield from np.split(images, 4)\n"
        "def dicts():\n    return [{'image': images}]\n"
        "def with_labels():\n    yield images, np.arange(len(images))\n"
        "def endless():\n    while True: yield images\n"
    )
    return tmp_path


def outputs(*arguments: object) -> list[dict[str, object]]:
    result = CliRunner().invoke(program, ["verify", *map(str, arguments), "--format", "json"])
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, object]] = json.loads(result.stdout)["outputs"]
    return found


@pytest.mark.parametrize(
    "source",
    [
        *("one.npy", "one.npz", "swapped.npy", "parts", "parts/*.npy", "sets", "sets/test_data_set_*"),
        *("script.py:arrays", "script.py:dicts", "script.py:with_labels"),
    ],
)
def test_every_form_gives_the_same_runs(folder, source):
    """Whatever they come in, it is the same samples that the models run on."""
    (expected,) = outputs(DIGITS, DIGITS, "--data", folder / "one.npz")
    (found,) = outputs(DIGITS, DIGITS, "--data", folder / source)
    assert found["inputs"].startswith("data, batch")
    assert (found["scale"], found["compared"]) == (expected["scale"], expected["compared"])


def test_an_endless_script_is_cut_short(folder):
    """Of a script only as many samples are taken as are run."""
    outputs(DIGITS, DIGITS, "--data", folder / "script.py:endless")


@pytest.mark.parametrize("size", [1, 3, SAMPLES])
def test_a_fixed_batch_is_kept_to(folder, tmp_path, size):
    """A model that takes batches of one size gets the samples in batches of that size."""
    model = onnx.load(DIGITS)
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_value = size
    onnx.save(model, tmp_path / "fixed.onnx")
    outputs(tmp_path / "fixed.onnx", tmp_path / "fixed.onnx", "--data", folder / "one.npz")


def test_sizes_of_the_user_hold_for_data_too(folder):
    """With --dim or --shape, data comes in batches of that size; what cannot be had is said."""
    runner = CliRunner()
    outputs(DIGITS, DIGITS, "--data", folder / "one.npy", "--dim", "batch=4")
    outputs(DIGITS, DIGITS, "--data", folder / "one.npy", "--shape", "image=4,1,8,8")
    common = ["verify", str(DIGITS), str(DIGITS), "--data", str(folder / "one.npy")]
    result = runner.invoke(program, [*common, "--dim", f"batch={SAMPLES + 1}"])
    assert result.exit_code == 2
    assert "does not take float[20,1,8,8]" in result.stderr


def model_of(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')


MIXED = """n (int64[N,3] ids, bool[N,3] mask, string[N,3] words, float[N,3] x, float scale)
    => (float[N,3] y, string[N,3] s)
    <float[5] table = {1, 2, 3, 4, 5}> {
        row = Gather(table, ids)  sum = Add(row, x)  kept = Where(mask, sum, x)  y = Mul(kept, scale)
        s = Identity(words)
    }"""


def mixed_feed() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "ids": random.integers(0, 5, (4, 3)),
        "mask": random.integers(0, 2, (4, 3)).astype(bool),
        "words": np.array([["a", "ü", "longer"]] * 4),
        "x": random.standard_normal((4, 3)).astype(np.float32),
        "scale": np.float32(2),
    }


def as_npz(folder: Path, feed: dict[str, np.ndarray]) -> str:
    np.savez(folder / "feed.npz", **feed)
    return str(folder / "feed.npz")


def as_test_data_set(folder: Path, feed: dict[str, np.ndarray]) -> str:
    test = folder / "test_data_set_0"
    test.mkdir()
    for number, (name, array) in enumerate(feed.items()):
        plain = np.asarray(array).astype(object) if name == "words" else np.asarray(array)
        (test / f"input_{number}.pb").write_bytes(numpy_helper.from_array(plain, name).SerializeToString())
    return str(test)


def as_script(folder: Path, feed: dict[str, np.ndarray]) -> str:
    as_npz(folder, feed)
    (folder / "feed.py").write_text(
        "import numpy as np\nfrom pathlib import Path\n"
        "def load_data():\n"
        "    feed = dict(np.load(Path(__file__).with_name('feed.npz')))\n"
        "    feed['words'] = feed['words'].astype(object)\n"
        "    yield feed\n    yield tuple(feed.values())\n"
    )
    return str(folder / "feed.py")


@pytest.mark.parametrize("form", [as_npz, as_test_data_set, as_script])
def test_inputs_of_every_type(form: Callable[[Path, dict[str, np.ndarray]], str], tmp_path):
    """Integers, booleans, text and numbers without axes, together; both models really run on them."""
    model = model_of(MIXED)
    result = verify(model, model, data=form(tmp_path, mixed_feed()))
    assert result.verdict is Verdict.EQUIVALENT, str(result)
    assert [output.compared for output in result.outputs] == [12, 12]
    assert result.how.startswith("ONNX Runtime")


def test_a_difference_on_data_is_found():
    """Data reaches what made-up inputs do not."""
    before = model_of("n (int64[N] ids) => (float[N] y) <float[6] t = {1, 2, 3, 4, 5, 6}> { y = Gather(t, ids) }")
    after = model_of("n (int64[N] ids) => (float[N] y) <float[6] t = {1, 2, 3, 4, 5, 7}> { y = Gather(t, ids) }")
    result = verify(before, after, data=[{"ids": np.array([0, 5])}])
    assert result.verdict is Verdict.DIFFERENT
    assert not result.outputs[0].passed


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x", np.zeros((4, 3)), "input 'x' float.* does not take double"),
        ("ids", np.zeros((4, 3), np.int32), "input 'ids' int64.* does not take int32"),
        ("mask", np.zeros((4, 3), np.uint8), "input 'mask' bool.* does not take uint8"),
        ("words", np.zeros((4, 3), np.float32), "input 'words' string.* does not take float"),
        ("x", np.array([["a"] * 3] * 4), "input 'x' float.* does not take string"),
        ("x", np.zeros((4, 4), np.float32), r"does not take float\[4,4\]"),
        ("scale", np.zeros(4, np.float32), r"input 'scale' float\[\] does not take float\[4\]"),
        ("x", np.zeros((4, 3), "datetime64[s]"), "datetime64"),
        ("x", np.zeros((4, 3), [("a", "f4")]), "which ONNX does not have"),
        ("x", np.array([[{}] * 3] * 4), "which ONNX does not have"),
        ("words", np.array([[b"\xff"] * 3] * 4), "not UTF-8"),
    ],
)
def test_data_that_does_not_fit(name, array, message):
    """Types and shapes are checked before anything runs; the error names the input or the type."""
    model = model_of(MIXED)
    with pytest.raises(ModelError, match=message):
        verify(model, model, data=[mixed_feed() | {name: array}])


@pytest.mark.parametrize("data", [[], [{}], [3], ["nowhere.npz"]])
def test_no_data(data):
    """To ask for data and get none is an error, not a run on something else."""
    model = model_of(MIXED)
    with pytest.raises(ModelError):
        verify(model, model, data=data)


def test_a_model_without_inputs_takes_no_data():
    """There is nothing to give it."""
    model = model_of("n () => (float[1] y) <float[1] k = {1}> { y = Relu(k) }")
    assert verify(model, model).verdict is Verdict.EQUIVALENT
    with pytest.raises(ModelError, match="no inputs"):
        verify(model, model, data=[{"x": np.zeros(1)}])
