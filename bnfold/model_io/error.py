"""The one error of this package."""


class ModelError(ValueError):
    """A model cannot be read or written. Its text is one line that says what is wrong and where."""
