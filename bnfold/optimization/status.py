"""What a result comes to, in one word that scripts may look for at the head of a report."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from bnfold.folding.record import Outcome, Plan
from bnfold.page import Tone

if TYPE_CHECKING:
    from bnfold.verification.result import Verification


class Status(StrEnum):
    """The words are public: never rename one."""

    # of optimize
    OK = "OK"  # every BatchNormalization went, or other affines did where there is none, and that is verified
    PARTLY = "PARTLY"  # verified, and some BatchNormalizations stay, or left a node behind
    NOTHING = "NOTHING"  # there was nothing to fold
    UNVERIFIED = "UNVERIFIED"  # whether the two compute the same was not found out
    DIFFERENT = "DIFFERENT"  # they do not; nothing is written
    STAYS = "STAYS"  # a BatchNormalization stays, and none may; nothing is written
    # of check
    CLEAN = "CLEAN"  # there is nothing of what --fail-on says
    FOUND = "FOUND"  # there is
    # of both
    FAILED = "FAILED"  # the model could not be read, or its output not written

    @property
    def tone(self) -> Tone:
        """Whether that is good."""
        return _TONES.get(self, Tone.DOUBTFUL)


_TONES = {
    Status.OK: Tone.GOOD,
    Status.CLEAN: Tone.GOOD,
    Status.NOTHING: Tone.PLAIN,
    Status.DIFFERENT: Tone.BAD,
    Status.STAYS: Tone.BAD,
    Status.FAILED: Tone.BAD,
}


def status_of(plan: Plan, verification: Verification | None) -> Status:
    """What an optimized model comes to."""
    if not plan.changes:
        return Status.NOTHING
    if verification is None or not verification.passed:
        return Status.DIFFERENT if verification is not None and verification.is_different else Status.UNVERIFIED
    stayed = (Outcome.KEPT, Outcome.REDUCED, Outcome.REPLACED)
    return Status.PARTLY if any(map(plan.count_batchnorms, stayed)) else Status.OK
