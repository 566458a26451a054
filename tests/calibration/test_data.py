"""Every form that data may have, and every way in which it may be wrong."""

import numpy as np
import onnx
import pytest
from calibration.helpers import bn_model, moments
from onnx import helper, numpy_helper

from bnfold.calibration import CalibrationError, calibrate, drift
from bnfold.calibration.images import Images
from bnfold.data import DataError

X = np.random.default_rng(0).normal(2, 3, size=(20, 3, 4, 4)).astype(np.float32)


def mean_of(data, here, model=None, **arguments):
    result = calibrate(model or bn_model(), data, executor=here, check=False, **arguments)
    return result.layers[0].measured.mean


def npy(folder):
    np.save(folder / "x.npy", X)
    return folder / "x.npy"


def npz(folder):
    np.savez(folder / "x.npz", x=X, labels=np.arange(20))
    return folder / "x.npz"


def some_files(folder):
    for number, part in enumerate(np.array_split(X, 3)):
        np.savez(folder / f"part{number}.npz", x=part)
    return folder


def a_glob(folder):
    return str(some_files(folder) / "part*.npz")


def onnx_test_data(folder):
    for number, part in enumerate(np.array_split(X, 2)):
        (folder / f"test_data_set_{number}").mkdir()
        (folder / f"test_data_set_{number}" / "input_0.pb").write_bytes(
            numpy_helper.from_array(part, "x").SerializeToString()
        )
    return folder


def script(body):
    def write(folder):
        np.save(folder / "x.npy", X)
        path = folder / f"script_{abs(hash(body))}.py"
        path.write_text(f"import numpy as np\nx = np.load({str(folder / 'x.npy')!r})\ndef load_data():\n    {body}\n")
        return path

    return write


class Reader:
    """As onnxruntime.quantization has it."""

    def __init__(self):
        self.parts = iter(np.array_split(X, 5))

    def get_next(self):
        part = next(self.parts, None)
        return None if part is None else {"x": part}


@pytest.mark.parametrize(
    "source",
    [
        npy,
        npz,
        some_files,
        a_glob,
        onnx_test_data,
        pytest.param(script("yield {'x': x[:9]}; yield {'x': x[9:]}"), id="script-dicts"),
        pytest.param(script("yield from np.array_split(x, 3)"), id="script-arrays"),
        pytest.param(script("yield x, np.arange(20)"), id="script-tuple"),
        pytest.param(lambda folder: [str(some_files(folder) / f"part{n}.npz") for n in range(3)], id="list-of-paths"),
        pytest.param(lambda folder: X, id="array"),
        pytest.param(lambda folder: {"x": X}, id="dict"),
        pytest.param(lambda folder: np.array_split(X, 4), id="list-of-arrays"),
        pytest.param(lambda folder: ((part, None) for part in np.array_split(X, 4)), id="generator-of-tuples"),
        pytest.param(lambda folder: Reader(), id="get_next"),
    ],
)
@pytest.mark.parametrize("sequence", [{}, {"max_samples": 20}], ids=["all", "at-most-20"])
def test_every_form(source, sequence, tmp_path, here):
    """All of them give the same statistics."""
    np.testing.assert_allclose(mean_of(source(tmp_path), here, **sequence), moments(X)[0], atol=1e-6)


def test_an_even_stride(tmp_path, here):
    """--max-samples never takes the head."""
    found = mean_of(X, here, max_samples=5)
    np.testing.assert_allclose(found, moments(X[2::4])[0], atol=1e-6)


def test_a_seeded_draw(here):
    """The same seed draws the same samples, another one others."""
    first, again, other = (mean_of(X, here, max_samples=5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_a_limit_on_an_iterator(here):
    """What can be read but once is kept until its length is known."""
    found = mean_of(iter(np.array_split(X, 5)), here, max_samples=5)
    np.testing.assert_allclose(found, moments(X[2::4])[0], atol=1e-6)


def test_samples_of_many_sizes(here):
    """Images of different sizes come in batches of their own; every pixel weighs alike."""
    small, large = X[:, :, :2, :3], X * 2
    result = calibrate(bn_model(), iter([small, large]), executor=here)
    both = np.concatenate([small.transpose(1, 0, 2, 3).reshape(3, -1), large.transpose(1, 0, 2, 3).reshape(3, -1)], 1)
    np.testing.assert_allclose(result.layers[0].measured.var, both.astype(float).var(1), rtol=1e-6)
    assert result.layers[0].measured.count == both.shape[1]


def test_a_fixed_batch_size(here):
    """The model's own is taken, and what does not fill a batch is reported."""
    result = calibrate(bn_model(batch=6), X, executor=here, batch_size=4)
    assert result.batch_size == 6
    assert result.samples == 18
    assert any("2 samples did not fill a batch of 6" in warning for warning in result.warnings)
    with pytest.raises(DataError, match="batches of exactly 6, there are 5 samples"):
        calibrate(bn_model(batch=6), X[:5], executor=here)


def broken(row, value):
    x = X.copy()
    x[row, 1, 2, 3] = value
    return x


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(X[:0], "has no samples|holds no samples|no samples", id="empty"),
        pytest.param(X.astype(np.float64), r"'x' takes float32 \[\?, 3, \?, \?\], the data has float64", id="type"),
        pytest.param(X[:, :, 0], r"the data has float32 \[20, 3, 4\]", id="rank"),
        pytest.param(X[:, :2], r"the data has float32 \[20, 2, 4, 4\]", id="channels"),
        pytest.param({"y": X}, "for input 'x'", id="name"),
        pytest.param(broken(13, np.nan), "row 13: holds NaN or infinity", id="nan"),
        pytest.param(broken(7, -np.inf), "row 7: holds NaN or infinity", id="inf"),
        pytest.param(3, "int is no data", id="no-data"),
        pytest.param("nowhere.npz", "nowhere.npz: no such file", id="no-file"),
        pytest.param("s3://bucket/x.npy", "fsspec|s3://bucket", id="url"),
    ],
)
def test_bad_data(data, message, here):
    """One line that says what is wrong and where."""
    with pytest.raises((DataError, CalibrationError), match=message) as caught:
        mean_of(data, here)
    assert "\n" not in str(caught.value)


def test_nan_is_named_by_file_and_row(tmp_path, here):
    """In the second of two files."""
    np.savez(tmp_path / "a.npz", x=X)
    np.savez(tmp_path / "b.npz", x=broken(4, np.nan))
    with pytest.raises(DataError, match=r"b\.npz, row 4: holds NaN"):
        mean_of([tmp_path / "a.npz", tmp_path / "b.npz"], here)
    with pytest.raises(DataError, match=r"b\.npz, row 4: holds NaN"):
        mean_of([tmp_path / "a.npz", tmp_path / "b.npz"], here, max_samples=39)


def test_infinity_inside_the_model_is_named(here):
    """Finite data whose activations overflow: the node and the sample."""
    x = X.copy()
    x[11] = 100
    for method in ("sequential", "pooled"):
        with pytest.raises(
            CalibrationError, match=r"bn: meets NaN or infinity, which the model makes of the data, row (11|8)"
        ):
            mean_of(x, here, bn_model(before=[("Exp", {})]), method=method, batch_size=4)


def test_a_script_that_raises(tmp_path, here):
    """Its own error, in one line."""
    path = script("raise RuntimeError('no camera')")(tmp_path)
    with pytest.raises(DataError, match=r"RuntimeError: no camera"):
        mean_of(path, here)


def test_two_inputs(tmp_path, here):
    """Inputs by name, or in order."""
    model = bn_model()
    model.graph.input.append(helper.make_tensor_value_info("extra", 1, ["N", 3, "d0", "d1"]))
    model.graph.node.insert(0, helper.make_node("Add", ["x", "extra"], ["sum"]))
    model.graph.node[1].input[0] = "sum"
    expected = moments(X + X * 2)[0]
    np.testing.assert_allclose(mean_of({"extra": X * 2, "x": X}, here, model), expected, atol=1e-6)
    np.testing.assert_allclose(mean_of(iter([(X, X * 2)]), here, model), expected, atol=1e-6)
    with pytest.raises(DataError, match="the model has the inputs x, extra"):
        mean_of(npy(tmp_path), here, model)


def scaled(shape):
    """A model with a factor for `x` as another input."""
    model = bn_model()
    model.graph.input.append(helper.make_tensor_value_info("factor", 1, shape))
    model.graph.node.insert(0, helper.make_node("Mul", ["x", "factor"], ["product"]))
    model.graph.node[1].input[0] = "product"
    return model


@pytest.mark.parametrize("source", ["npz", "script", "dict"])
def test_a_scalar_is_for_all_samples(source, tmp_path, here):
    """An input without a first axis goes with every batch."""
    feed = {"factor": np.float32(3), "x": X}
    if source == "npz":
        np.savez(tmp_path / "x.npz", **feed)
    data = {"npz": tmp_path / "x.npz", "script": script("yield {'factor': np.float32(3), 'x': x}")(tmp_path)}
    found = mean_of(data.get(source, feed), here, scaled([]), batch_size=8)
    np.testing.assert_allclose(found, moments(3 * X)[0], atol=1e-6)


def test_an_input_that_is_no_samples(tmp_path, here):
    """Where first axes have different lengths, and the model allows it, a file is one batch."""
    np.savez(tmp_path / "x.npz", factor=np.arange(3, dtype=np.float32)[:, None, None], x=X)
    found = mean_of(tmp_path / "x.npz", here, scaled([3, 1, 1]))
    np.testing.assert_allclose(found, moments(X)[0] * np.arange(3), atol=1e-6)


def test_as_many_samples_for_each_input(tmp_path, here):
    """Inputs whose first axes have one name."""
    np.savez(tmp_path / "x.npz", factor=np.ones((7, 1, 1, 1), np.float32), x=X)
    with pytest.raises(DataError, match=r"row 0: the inputs have different numbers of samples: 'x' 20, 'factor' 7"):
        mean_of(tmp_path / "x.npz", here, scaled(["N", 1, 1, 1]))


def test_images(tmp_path, here):
    """Resized, scaled, normalised and laid out as told."""
    pillow = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 5, 3)).astype(np.uint8)
    for number, image in enumerate(pixels):
        pillow.fromarray(image).save(tmp_path / f"{number}.png")
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    expected = ((pixels / 255 - mean) / std).astype(np.float32)
    images = Images(tmp_path, (6, 5), mean, std)
    np.testing.assert_allclose(np.concatenate(list(images)), expected.transpose(0, 3, 1, 2), atol=1e-6)
    other = Images(tmp_path, (6, 5), mean, std, "NHWC", bgr=True)
    swapped = ((pixels[..., ::-1] / 255 - mean) / std).astype(np.float32)
    np.testing.assert_allclose(np.concatenate(list(other)), swapped, atol=1e-6)
    np.testing.assert_allclose(mean_of(images, here), expected.mean((0, 1, 2)), atol=1e-6)
    (tmp_path / "5.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"5\.png"):
        list(images)


def test_no_images(tmp_path):
    """A folder without any, or none at all."""
    pytest.importorskip("PIL.Image")
    for folder, message in ((tmp_path, "holds no images"), (tmp_path / "none", "no such folder")):
        with pytest.raises(DataError, match=message):
            list(Images(folder, (4, 4), [0.5], [0.5]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("values", [np.uint16, np.int32, np.float32])
def test_images_of_more_than_eight_bits(values, channels, tmp_path):
    """Pillow would cut their values off at 255."""
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(np.arange(16).reshape(4, 4).astype(values) * 100).save(tmp_path / "deep.tiff")
    with pytest.raises(DataError, match=r"deep\.tiff: has values of more than eight bits .* \.npy"):
        list(Images(tmp_path, (4, 4), [0.5] * channels, [0.5] * channels))


def test_an_image_that_is_too_large(tmp_path):
    """For Pillow, which refuses what may be a decompression bomb."""
    pillow = pytest.importorskip("PIL.Image")
    pillow.new("1", (20000, 10000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png: Image size .* exceeds limit"):
        list(Images(tmp_path, (4, 4), [0.5], [0.5]))


def test_urls(tmp_path, here):
    """What fsspec reads."""
    pytest.importorskip("fsspec")
    np.savez(tmp_path / "x.npz", x=X)
    np.testing.assert_allclose(mean_of(f"file://{tmp_path}/x.npz", here), moments(X)[0], atol=1e-6)


def test_a_graph_input_that_is_an_initializer_is_not_asked_for(here):
    """It has a value already."""
    model = bn_model()
    model.graph.input.append(helper.make_tensor_value_info("gamma", onnx.TensorProto.FLOAT, [3]))
    np.testing.assert_allclose(mean_of(X, here, model), moments(X)[0], atol=1e-6)


def test_a_size_of_minus_one_is_open(here):
    """Some exporters write it for any size."""
    model = bn_model(batch=-1)
    data = np.random.default_rng(0).normal(size=(5, 3, 4, 4)).astype(np.float32)
    assert calibrate(model, data, executor=here).samples == 5


def test_a_batch_size_that_the_model_does_not_take(here):
    """The model's own is taken, and it is said, as are samples that fill no batch of it; in every verb."""
    model = bn_model(batch=8)
    result = calibrate(model, X, executor=here, batch_size=5)
    told = (
        "the model takes batches of 8 and of no other size, also where 5 are asked for",
        "4 samples did not fill a batch of 8, which the model insists on",
    )
    assert result.batch_size == 8
    assert result.samples == 16
    assert result.warnings[:2] == told
    assert drift(result.proto(), X, executor=here, batch_size=5).warnings == told
    assert calibrate(model, X[:16], executor=here, batch_size=8).warnings[0].startswith("a mean of bn is known")


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        pytest.param(X.astype(np.float64), ": x.astype('float32') makes it that", id="another float"),
        pytest.param(X.astype(np.uint8), "", id="pixels are scaled first"),
        pytest.param(X[:, :2].astype(np.float64), "", id="nor is it of that shape"),
    ],
)
def test_another_type_of_floats(data, advice, here):
    """What numpy makes by default is float64; nothing is converted unasked, but the way is told."""
    with pytest.raises(DataError) as refused:
        calibrate(bn_model(), data, executor=here)
    assert str(refused.value).endswith(f"the data has {data.dtype} {list(data.shape)}{advice}")
