"""A text that is written beside a model: there whole or not at all."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from bnfold.model_io.error import ModelError
from bnfold.model_io.temporary import Temporary


def write_text(path: Path, text: str) -> None:
    """Writes it; what was there is replaced at once or not at all. A symbolic link stands for what it points to.

    What is no regular file, such as /dev/stdout, is written to.

    Raises:
        ModelError: It cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
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
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror}") from error
