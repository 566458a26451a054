"""A text in a file: whole, or not there at all."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from bnfold.model_io.temporary import Temporary


def write_whole(path: Path, text: str) -> None:
    """Writes a text; what was there is replaced at once or not at all. What is no regular file is written to.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        path.write_text(text, encoding="utf-8")
        return
    with closing(Temporary(target.parent)) as temporary:
        draft = temporary.path(".json")
        with open(draft, "x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, target)
