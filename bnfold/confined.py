"""What a verification may take, and a process that is held to it.

Time is looked at between operators, so that what is known by then is kept. What one operator does in a single call can
be held by nothing but the kernel, so the work is done in a copy of this process that has a limit of its own.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

from bnfold.blas import use_one_thread
from bnfold.limits import Deadline, Limits, held_to

Progress = Callable[[str, int, int], None]
_Result = TypeVar("_Result")

_GRACE = 0.7  # seconds behind the deadline for coming to an end by itself
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Exhausted(Exception):
    """Time, memory or processes ran out, so nothing is known. The text says which."""


def not_started(error: OSError) -> str:
    """What to say where there is no process for some work: a limit of the system, mostly."""
    return f"the system does not let a process start: {error.strerror}"


def confined(work: Callable[[Progress], _Result], limits: Limits, progress: Progress) -> _Result:
    """The result of some work, which is killed if it takes longer, and gets no more memory, than it may.

    Where processes cannot be copied safely (elsewhere than on Linux) it is done in this one, and heeds its deadline.

    Raises:
        Exhausted: Time or memory ran out, or no process can be started.
    """
    try:
        if sys.platform == "linux":
            return _forked(work, limits, progress)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of numbers that are made up
            return work(progress)
    except MemoryError as error:
        raise Exhausted("there was not enough memory") from error


def _forked(work: Callable[[Progress], _Result], limits: Limits, progress: Progress) -> _Result:
    try:
        ours, theirs = Pipe(duplex=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of other threads, which have nothing to do with this
            child = os.fork()
    except OSError as error:
        raise Exhausted(not_started(error)) from error
    if not child:
        _serve(work, limits, theirs)
    theirs.close()
    try:
        result: _Result = _heard(ours, Deadline.after(limits.seconds + _GRACE), limits, progress)
        return result
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        ours.close()


def _heard(pipe: Connection, deadline: Deadline, limits: Limits, progress: Progress) -> Any:
    """What the child says at last."""
    while pipe.poll(max(0.0, deadline.left)):
        try:
            kind, content = pipe.recv()
        except EOFError:
            raise Exhausted("its process was killed, for want of memory perhaps") from None
        if kind == "progress":
            progress(*content)
        elif kind == "error":
            raise content
        else:
            return content
    raise Exhausted(f"it took more than {limits.seconds:.3g} s")


def _serve(work: Callable[[Progress], Any], limits: Limits, pipe: Connection) -> None:
    """The life of the child: nothing that it has from its parent is closed, flushed or deleted."""
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        use_one_thread()
        warnings.simplefilter("ignore", RuntimeWarning)  # as above
        try:
            with held_to(limits.allowed):
                answer: tuple[str, Any] = "result", work(lambda *done: pipe.send(("progress", done)))
        except Exception as error:
            answer = "error", _portable(error)
        pipe.send(answer)
    finally:
        os._exit(0)


def _portable(error: Exception) -> Exception:
    """The error with its traceback in words; another of the same text if it cannot be sent to another process."""
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class makes of that
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
