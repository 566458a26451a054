"""Population statistics for BatchNormalizations, measured on calibration data under ONNX Runtime.

It shares nothing with folding but the reader of BatchNormalization.
"""

from bnfold.calibrate.error import CalibrationError
from bnfold.calibrate.images import Images
from bnfold.calibrate.methods import Method
from bnfold.calibrate.result import Calibration, Layer
from bnfold.calibrate.shift import Drift, LayerDrift, Verdict, drift
from bnfold.calibrate.verb import calibrate

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
