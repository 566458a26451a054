"""What a fold is asked for, as a value and as arguments."""

from dataclasses import fields

import pytest

from bnfold.calibration.place import RunArguments, RunOptions
from bnfold.folding import FoldArguments, FoldOptions


@pytest.mark.parametrize(("options", "arguments"), [(FoldOptions, FoldArguments), (RunOptions, RunArguments)])
def test_arguments_are_the_attributes(options, arguments):
    """What a type checker lets pass is what the value has; mypy sees to the types."""
    assert [field.name for field in fields(options) if field.init] == list(arguments.__annotations__)


@pytest.mark.parametrize("wrong", [{"leftover": "none"}, {"max_growth": "much"}, {"max_growth": -1}])
def test_senseless_options_are_refused(wrong):
    """At once, and not while something is folded."""
    with pytest.raises(ValueError, match=r"not|valid"):
        FoldOptions(**wrong)


def test_a_list_is_read_once():
    """An iterator of patterns serves every run over the model."""
    assert FoldOptions(keep=iter(["a", "b"])).keep == ("a", "b")


def test_growth_is_a_whole_percentage():
    """What comes behind it is a mistake."""
    with pytest.raises(ValueError, match="percentage"):
        FoldOptions(max_growth="10% or so")
