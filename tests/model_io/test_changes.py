"""A model whose files change while it is in use is refused: what was planned on one content fits no other."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bnfold.model_io import Model, ModelError, load, staged, to_proto, write_stream

OLD, NEW = np.zeros(3000, np.float32), np.ones(3000, np.float32)
CHANGED = r"was changed while it was in use|No such file"


def edited(path: Path, data, midway: Callable[[], object] = lambda: None) -> Model:
    model = load(path)
    model.attach(model.proto.graph.initializer[0], data(NEW.tobytes(), midway))
    return model


def _rewritten(path: Path) -> None:
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # the clock of a file system may be slower than we are


def _exchanged(path: Path) -> None:
    path.with_name("exchange").write_bytes(path.read_bytes())
    path.with_name("exchange").replace(path)


def write(model: Model, out: Path, look: Callable[..., object]) -> None:
    with staged(model, out) as new:
        look(new)


CHANGES = [
    pytest.param("model.onnx", _rewritten, id="model-rewritten"),
    pytest.param("model.onnx", _exchanged, id="model-exchanged"),
    pytest.param("weights.bin", _rewritten, id="data-rewritten"),
    pytest.param("weights.bin", _exchanged, id="data-exchanged"),
    pytest.param("weights.bin", Path.unlink, id="data-removed"),
]


@pytest.fixture
def outside(tmp_path, model_of, external) -> Path:
    """A model with its weights in a data file of the user's."""
    return external(tmp_path / "model.onnx", model_of(v=OLD, w=OLD), w={"location": "weights.bin"})


@pytest.mark.parametrize(("name", "change"), CHANGES)
@pytest.mark.parametrize("moment", ["before", "midway", "after"])
def test_what_changes_while_it_is_in_use_is_refused(outside, data, name, change, moment):
    """What was planned on one content must not be written with another, wherever it goes."""
    path = outside.with_name(name)
    out = outside.with_name("out.onnx")
    model = edited(outside, data, lambda: change(path) if moment == "midway" else None)
    before = set(os.listdir(outside.parent))
    if moment == "before":
        change(path)
    with pytest.raises(ModelError, match=CHANGED):
        write(model, out, lambda _: change(path) if moment == "after" else None)
    assert set(os.listdir(outside.parent)) == before - ({name} if change is Path.unlink else set())


@pytest.mark.parametrize(("name", "change"), [CHANGES[0], *CHANGES[2:]])
def test_what_changes_is_refused_in_memory_too(outside, data, name, change):
    """By a stream, and by a model as a proto. What another file took the place of is still the same to us."""
    model = edited(outside, data)
    change(outside.with_name(name))
    with pytest.raises(ModelError, match=CHANGED):
        to_proto(model)
    with pytest.raises(ModelError, match=CHANGED):
        write_stream(model, io.BytesIO())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda old, new: _exchanged(old), r"model\.onnx: was changed", id="another-model"),
        pytest.param(lambda old, new: new.unlink(), "was removed while it was in use", id="nothing-to-look-at"),
        pytest.param(lambda old, new: None, "the verdict", id="neither"),
    ],
)
def test_a_verdict_on_what_has_changed_is_none(outside, data, spoil, message):
    """Whoever looks at the new model compares it with a file that is another one by now, or is no more."""

    def look(new: Path) -> None:
        spoil(outside, new)
        raise RuntimeError("the verdict")

    with pytest.raises((ModelError, RuntimeError), match=message):
        write(edited(outside, data), outside, look)
