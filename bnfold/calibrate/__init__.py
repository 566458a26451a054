"""Population statistics for BatchNormalizations, measured on calibration data under ONNX Runtime.

It shares nothing with folding but the reader of BatchNormalization.
"""

from bnfold import telemetry

telemetry.turn_off()  # before a module of this package imports ONNX Runtime, in whichever process that is

from bnfold.calibrate.error import CalibrationError  # noqa: E402
from bnfold.calibrate.images import Images  # noqa: E402
from bnfold.calibrate.methods import Method  # noqa: E402
from bnfold.calibrate.result import Calibration, Layer  # noqa: E402
from bnfold.calibrate.shift import Drift, LayerDrift, Verdict, drift  # noqa: E402
from bnfold.calibrate.verb import calibrate  # noqa: E402

__all__ = [
    "Calibration",
    "CalibrationError",
    "Drift",
    "Images",
    "Layer",
    "LayerDrift",
    "Method",
    "Verdict",
    "calibrate",
    "drift",
]
