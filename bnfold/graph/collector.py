"""The garbage collector beside an index, whose ops and values hold each other and are no garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEVER = 1 << 30


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without this, the garbage collector looks through all of an index again and again while it grows."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def old_objects_left_alone() -> Iterator[None]:
    """Without this, the collector looks through an index again and again while it is worked on; it is no garbage."""
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)
