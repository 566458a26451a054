"""Where memory ends, protobuf says only that it failed."""

import re
from pathlib import Path

import onnx
import pytest
from google.protobuf.message import EncodeError

import bnfold
from bnfold.model_io import protobuf

_PACKAGE = Path(bnfold.__file__).parent


class Full:
    """A message for which there is no memory; this kind even counts its bytes by making them."""

    def SerializeToString(self, **_: bool) -> bytes:  # noqa: N802 -- protobuf's name
        raise EncodeError("Failed to serialize proto")

    def ByteSize(self) -> int:  # noqa: N802 -- as above
        raise EncodeError("Failed to serialize proto")


@pytest.mark.parametrize("ask", [protobuf.encoded, protobuf.size_of, protobuf.copied])
def test_a_lack_of_memory_is_told_as_one(ask):
    """And not as an error in bnfold."""
    with pytest.raises(MemoryError):
        ask(Full())


def test_the_bytes_and_their_number():
    """Are those of protobuf."""
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    assert protobuf.encoded(node) == node.SerializeToString()
    assert protobuf.size_of(node) == node.ByteSize()


def test_nobody_else_asks_protobuf():
    """Who does so has an error of a kind that nobody expects."""
    asks = re.compile(r"\.(SerializeToString|SerializePartialToString|ByteSize)\(")
    assert [path.name for path in _PACKAGE.rglob("*.py") if asks.search(path.read_text(encoding="utf-8"))] == [
        "protobuf.py"
    ]
