"""The error of this package."""

from bnfold.model_io import ModelError


class CalibrationError(ModelError):
    """Statistics cannot be measured. Its text is one line that says what is wrong and where."""
