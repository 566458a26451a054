"""JSON Schemas of what bnfold prints as JSON. `bnfold schema KIND` prints one; docs/schemas/ has them as files."""

from bnfold.schemas.calibration import CALIBRATION, DRIFT, REFERENCE
from bnfold.schemas.certificate import CERTIFICATE, RECORD
from bnfold.schemas.models import MODELS
from bnfold.schemas.parts import Schema
from bnfold.schemas.verification import VERIFICATION

__all__ = ["SCHEMAS"]

SCHEMAS: dict[str, Schema] = {
    "models": MODELS,
    "verification": VERIFICATION,
    "calibration": CALIBRATION,
    "reference": REFERENCE,
    "drift": DRIFT,
    "certificate": CERTIFICATE,
    "record": RECORD,
}
