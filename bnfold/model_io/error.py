"""The one error of this package."""

from bnfold import escape


class ModelError(ValueError):
    """A model cannot be read or written. Its text is one line that says what is wrong and where, with names escaped."""

    def __str__(self) -> str:
        return escape.line(super().__str__())
