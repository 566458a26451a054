"""A folder of images as data, prepared exactly as told: how a network wants its input is nothing to guess."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.data import DataError

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_OTHER_SUFFIXES = frozenset({".npy", ".npz", ""})  # of arrays, and of folders
_DEEP_MODES = ("I", "F")  # of Pillow: int32, I;16 and the like, float32; it would cut them off at 255


def are_images(folder: Path) -> bool:
    """Whether it is a folder with images in it and no other data."""
    suffixes = {path.suffix.lower() for path in folder.iterdir()} if folder.is_dir() else set()
    return not suffixes.isdisjoint(_SUFFIXES) and suffixes.isdisjoint(_OTHER_SUFFIXES)


class Layout(Enum):
    """The order of axes."""

    NCHW = "NCHW"
    NHWC = "NHWC"


@dataclass(frozen=True)
class Images:
    """Images in a folder and the folders in it, in the order of their names; iterate over it for batches of one.

    A pixel becomes (value / 255 - mean) / std, as torchvision has it. For pixels from 0 to 255, say mean 0 and
    std 0.00392156862745098.

    Attributes:
        folder: of the images.
        size: height and width that each image is resized to (bilinear; the aspect is not kept).
        mean: of each channel; one number for all, or for grey images.
        std: likewise.
        layout: of the input.
        bgr: whether channels go from blue to red (OpenCV) instead of from red to blue.
    """

    folder: Path
    size: tuple[int, int]
    mean: Sequence[float]
    std: Sequence[float]
    layout: Layout | str = Layout.NCHW
    bgr: bool = False

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        try:
            from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 -- an extra
        except ImportError:
            raise DataError(f"{self.folder}: images need Pillow: pip install bnfold[images]") from None
        self._check()
        for path in self._paths():
            try:
                with Image.open(path) as image:
                    yield self._prepared(image)
            except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
                raise DataError(f"{path}: {error}") from error

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colours."""
        return 1 if len(self.mean) == len(self.std) == 1 else 3

    def _check(self) -> None:
        if {len(self.mean), len(self.std)} - {1, 3}:
            raise DataError(f"mean and std take 1 or 3 numbers, not {len(self.mean)} and {len(self.std)}")
        if not all(self.std) or not np.isfinite([*self.mean, *self.std]).all() or min(self.size) < 1:
            raise DataError("the standard deviations of pixels and the size of images have to be positive")

    def _paths(self) -> list[Path]:
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder")
        paths = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not paths:
            raise DataError(f"{self.folder}: holds no images")
        return paths

    def _prepared(self, image: Any) -> npt.NDArray[np.float32]:
        from PIL import Image  # noqa: PLC0415

        if image.mode.startswith(_DEEP_MODES):
            raise ValueError(f"has values of more than eight bits (mode {image.mode}); give them as .npy")
        height, width = self.size
        resized = image.convert("L" if self.channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized, np.float32).reshape(height, width, self.channels) / 255
        pixels = pixels[..., ::-1] if self.bgr else pixels
        pixels = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        pixels = pixels.transpose(2, 0, 1) if Layout(self.layout) is Layout.NCHW else pixels
        return np.ascontiguousarray(pixels[None], np.float32)
