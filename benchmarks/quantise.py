"""What int8 costs the digits networks: quantised as they come, after ONNX Runtime's own pre-processing, and folded.

    python benchmarks/quantise.py > benchmarks/results/quantise.md

Static quantisation of ONNX Runtime (QDQ, int8 activations and weights), calibrated on the 1000 training images. Right:
of the 797 test images. Error: root mean square of what the logits are off, as a part of the float model's own logits.

Both are taken with graph optimisations off, which computes what the file says. With them on, ONNX Runtime takes integer
kernels, and on x86 without VNNI those saturate: sums of two products are held in 16 bits. The last columns show that.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import bnfold

_MODELS = Path(__file__).resolve().parent.parent / "models"
_NETWORKS = ("digits_resnet", "digits_mlp", "digits_preact")
_INPUT, _BATCH = "image", 50
Images = npt.NDArray[np.float32]


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime ships no types
    def __init__(self, images: Images) -> None:
        self._batches = iter(np.array_split(images, len(images) // _BATCH))

    def get_next(self) -> dict[str, Images] | None:
        return next(({_INPUT: batch} for batch in self._batches), None)


def _as_it_comes(model: Path, prepared: Path) -> None:
    shutil.copy(model, prepared)


def _pre_processed(model: Path, prepared: Path) -> None:
    quant_pre_process(model, prepared)


def _folded(model: Path, prepared: Path) -> None:
    bnfold.optimize(model, prepared)


_FORMS: dict[str, Callable[[Path, Path], None]] = {
    "as it comes": _as_it_comes,
    "pre-processed": _pre_processed,
    "folded": _folded,
}


def main() -> None:
    """Prints a table in Markdown."""
    print(f"onnxruntime {version('onnxruntime')}, onnx {version('onnx')}, {_processor()}.")
    print("Right / error.\n")
    print(
        "| network | form | nodes in int8 | per tensor | per channel | the same, kernels | and reduce_range, kernels |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for network in _NETWORKS:
        for form in _FORMS:
            print("|", " | ".join(_row(network, form)), "|", flush=True)


def _processor() -> str:
    """The kind, and whether it has VNNI, as far as Linux tells."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return f"{platform.machine()} {'with' if 'vnni' in flags else 'without'} VNNI"


def _row(network: str, form: str) -> Iterator[str]:
    train, test = (np.load(_MODELS / f"digits_{part}.npz")[_INPUT] for part in ("train", "test"))
    original = _MODELS / f"{network}.onnx"
    truth = _logits(original, test)
    with tempfile.TemporaryDirectory() as name:
        prepared, quantised = Path(name, "prepared.onnx"), Path(name, "quantised.onnx")
        _FORMS[form](original, prepared)
        quantise(prepared, quantised, train)
        results = [_logits(quantised, test)]
        quantise(prepared, quantised, train, per_channel=True)
        results += [_logits(quantised, test), _logits(quantised, test, kernels=True)]
        quantise(prepared, quantised, train, per_channel=True, reduce_range=True)
        results.append(_logits(quantised, test, kernels=True))
        nodes = len(onnx.load(quantised).graph.node)
    yield from (network, form, str(nodes))
    yield from (_quality(logits, truth) for logits in results)


def quantise(
    model: Path, quantised: Path, images: Images, *, per_channel: bool = False, reduce_range: bool = False
) -> None:
    """Static int8, with the ranges that the images give."""
    quantize_static(
        model,
        quantised,
        _Batches(images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        reduce_range=reduce_range,
    )


def _logits(model: Path, images: Images, *, kernels: bool = False) -> npt.NDArray[np.float32]:
    options = ort.SessionOptions()
    if not kernels:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    logits: npt.NDArray[np.float32] = session.run(None, {_INPUT: images})[0]
    return logits


def _quality(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> str:
    digits = np.load(_MODELS / "digits_labels.npz")["test"]
    error = np.sqrt(np.mean((logits - truth) ** 2) / np.mean(truth**2))
    return f"{(logits.argmax(axis=1) == digits).sum()} / {error:.3f}"


if __name__ == "__main__":
    main()
