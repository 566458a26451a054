"""Workers of a Dask cluster as an executor."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from bnfold.calibrate.error import CalibrationError

_PATIENCE = "10s"


@contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """The cluster whose scheduler is at `address`, such as `tcp://host:8786`.

    Tasks are impure to Dask: each is run, and run again if its worker dies. Workers need bnfold, and the working folder
    under the same path.

    Raises:
        CalibrationError: nothing answers there, or there is no Dask here.
    """
    try:
        from distributed import Client  # noqa: PLC0415 -- an extra
    except ImportError:
        raise CalibrationError("a Dask cluster needs Dask: pip install bnfold[dask]") from None
    try:
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise CalibrationError(f"no Dask scheduler answers at {address}") from error
    with client:
        yield client.get_executor(pure=False)
