"""The file of `--report`."""

from __future__ import annotations

from collections.abc import Callable


def report_to(path: str | None, *others: str | None) -> Callable[..., None]:
    """What writes a result to the file of `--report`, if one is given. What can be refused is refused now.

    Args:
        path: The file.
        others: Files that are read, or written, for something else.
    """
    if path is None:
        return lambda *_: None
    from bnfold.report import Draft  # noqa: PLC0415 -- imports onnx, which --help must not

    return Draft(path, [other for other in others if other not in (None, "-")]).write
