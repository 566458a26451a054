"""The networks in models/ are what models/README.md says they are."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from networks import FILES, MODELS, NETWORKS

TABLE_ROW = re.compile(r"^\| `(\S+\.onnx)` \| (\d+) \| (\d+) \| (\d\.\d{4}) \|$", re.MULTILINE)
ACCURACY = TABLE_ROW.findall((MODELS / "README.md").read_text(encoding="utf-8"))


def images(part: str) -> npt.NDArray[np.float32]:
    image: npt.NDArray[np.float32] = np.load(MODELS / f"digits_{part}.npz")["image"]
    return image


def labels(part: str) -> npt.NDArray[np.int64]:
    label: npt.NDArray[np.int64] = np.load(MODELS / "digits_labels.npz")[part]
    return label


def logits(model: onnx.ModelProto) -> npt.NDArray[Any]:
    """What the model, as it is written, says of the test images."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # inference_mode leaves unread constants behind, and the runtime would tell
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (result,) = session.run(["logits"], {"image": images("test")})
    return np.asarray(result)


def batchnorms(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "BatchNormalization"]


def training_modes(model: onnx.ModelProto) -> set[int]:
    return {a.i for bn in batchnorms(model) for a in bn.attribute if a.name == "training_mode"}


def inference_mode(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with training mode switched off; nothing else changes."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for bn in batchnorms(result):
        next(a for a in bn.attribute if a.name == "training_mode").i = 0
        del bn.output[1:]
    for node in result.graph.node:
        if node.op_type == "Dropout":
            del node.input[1:]
    return result


def running_statistics(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    names = {name for bn in batchnorms(model) for name in bn.input[3:5]}
    return {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in names}


def test_the_table_lists_every_file() -> None:
    """Each network in its three forms."""
    assert sorted(file for file, *_ in ACCURACY) == sorted(FILES)


@pytest.mark.parametrize(("file", "bns", "right", "accuracy"), ACCURACY, ids=[file for file, *_ in ACCURACY])
def test_a_row_of_the_table_is_true(file: str, bns: str, right: str, accuracy: str) -> None:
    """A file has as many BNs and gives as many right answers as its row says."""
    model = onnx.load(MODELS / file)
    onnx.checker.check_model(model, full_check=True)
    assert len(batchnorms(model)) == int(bns)
    answers = logits(inference_mode(model)).argmax(axis=1)
    assert np.count_nonzero(answers == labels("test")) == int(right)
    assert f"{int(right) / len(answers):.4f}" == accuracy


@pytest.mark.parametrize("name", NETWORKS)
def test_the_decomposed_form_is_the_same_function(name: str) -> None:
    """It differs from the plain form by float32 rounding only."""
    plain, decomposed = (logits(onnx.load(MODELS / f"{name}{form}.onnx")) for form in ("", ".decomposed"))
    np.testing.assert_allclose(decomposed, plain, rtol=0, atol=2e-6 * np.abs(plain).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_training_form_differs_in_its_statistics_only(name: str) -> None:
    """With the plain form's statistics, in inference mode, its logits are the plain form's to the bit."""
    plain, training = (onnx.load(MODELS / f"{name}{form}.onnx") for form in ("", ".train"))
    assert training_modes(plain) == {0}
    assert training_modes(training) == {1}
    assert all(len(bn.output) == 3 and all(bn.output) for bn in batchnorms(training))

    restored = inference_mode(training)
    statistics = running_statistics(plain)
    for key, tensor in running_statistics(restored).items():
        assert tensor != statistics[key]
        tensor.CopyFrom(statistics[key])
    np.testing.assert_array_equal(logits(restored), logits(plain))


@pytest.mark.parametrize(("part", "count"), [("train", 1000), ("test", 797)])
def test_pixels_are_exact_sixteenths(part: str, count: int) -> None:
    """Images are float32 counts from 0 to 16, divided by 16; each has a label."""
    image = images(part)
    assert image.dtype == np.float32
    assert image.shape == (count, 1, 8, 8)
    assert set(np.unique(image * 16)) == set(range(17))
    assert set(np.unique(labels(part))) == set(range(10))
    assert labels(part).shape == (count,)
