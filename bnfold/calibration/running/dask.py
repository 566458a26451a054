"""Workers of a Dask cluster as an executor."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from bnfold.calibration.error import CalibrationError

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
        with ThreadPoolExecutor(1) as pool:  # the caller's thread may run an event loop of its own, as notebooks do
            pool.submit(asyncio.run, _reach(address)).result()
    except (OSError, ValueError, TypeError) as error:
        raise CalibrationError(f"no Dask scheduler answers at {address!r}: {error}") from error
    with Client(address, timeout=_PATIENCE, set_as_default=False) as client:
        yield client.get_executor(pure=False)


async def _reach(address: str) -> None:
    """Connects once: a client that cannot hangs when it is thrown away, and then prints a traceback."""
    from distributed import Security  # noqa: PLC0415
    from distributed.comm import connect  # noqa: PLC0415

    comm = await connect(address, timeout=_PATIENCE, **Security().get_connection_args("client"))
    await comm.close()
