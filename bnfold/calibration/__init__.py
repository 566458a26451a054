"""Population statistics for BatchNormalizations, measured on calibration data under ONNX Runtime.

It shares nothing with folding but the reader of BatchNormalization.
"""

from bnfold import telemetry

telemetry.turn_off()  # before a module of this package imports ONNX Runtime, in whichever process that is

from bnfold.calibration.drifted import Drift, LayerDrift, Verdict  # noqa: E402
from bnfold.calibration.error import CalibrationError  # noqa: E402
from bnfold.calibration.estimate import calibrate  # noqa: E402
from bnfold.calibration.images import Images  # noqa: E402
from bnfold.calibration.matched import Matched  # noqa: E402
from bnfold.calibration.place import RunOptions  # noqa: E402
from bnfold.calibration.result import Calibration, Layer  # noqa: E402
from bnfold.calibration.shift import drift  # noqa: E402
from bnfold.calibration.statistics.methods import Method  # noqa: E402

__all__ = [
    "Calibration",
    "CalibrationError",
    "Drift",
    "Images",
    "Layer",
    "LayerDrift",
    "Matched",
    "Method",
    "RunOptions",
    "Verdict",
    "calibrate",
    "drift",
]
