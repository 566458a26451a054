"""On a real Dask cluster of this machine. Skipped where there is no Dask."""

import asyncio
import os
import signal

import numpy as np
import pytest
from calibration.helpers import TRAIN
from networks import MODELS, ROOT

distributed = pytest.importorskip("distributed")

from bnfold.calibration import CalibrationError, calibrate  # noqa: E402 -- after the skip

pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own
MODEL = MODELS / "digits_resnet.train.onnx"


def bits(result):
    return b"".join(array.tobytes() for layer in result.layers for array in (layer.measured.mean, layer.measured.var))


@pytest.fixture(scope="module")
def cluster():
    os.environ["PYTHONPATH"] = str(ROOT)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


@pytest.mark.parametrize("method", ["sequential", "pooled"])
def test_the_same_bits(method, cluster):
    """As in one process."""
    here = calibrate(MODEL, TRAIN, method=method, batch_size=50, threads=1, check=False)
    there = calibrate(MODEL, TRAIN, method=method, batch_size=50, dask=cluster.scheduler_address, check=False)
    assert bits(here) == bits(there)


def test_an_executor_of_a_client(cluster):
    """Also with Dask's default of pure tasks."""
    here = calibrate(MODEL, TRAIN, batch_size=50, threads=1, check=False)
    with distributed.Client(cluster) as client:
        there = calibrate(MODEL, TRAIN, batch_size=50, executor=client.get_executor(), check=False)
    assert bits(here) == bits(there)


def test_a_killed_worker(cluster):
    """In the middle of the work; Dask starts it again, and the result has the same bits."""
    images = np.concatenate([np.load(TRAIN)["image"]] * 3)
    expected = calibrate(MODEL, images, batch_size=25, threads=1, check=False)
    killed = []

    def kill(what, done, total):
        if what.startswith("segment 3") and not killed:
            worker = next(iter(cluster.workers.values()))
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    found = calibrate(MODEL, images, batch_size=25, dask=cluster.scheduler_address, progress=kill, check=False)
    assert killed
    assert bits(found) == bits(expected)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "http://127.0.0.1:9", "tls://127.0.0.1:9", ""])
def test_an_address_where_nobody_is(address):
    """One line."""
    with pytest.raises(CalibrationError, match=f"no Dask scheduler answers at '{address}': .") as caught:
        calibrate(MODEL, TRAIN, dask=address)
    assert "\n" not in str(caught.value)


def test_in_a_notebook(cluster):
    """Where the caller's thread runs an event loop."""

    async def cell():
        return calibrate(MODEL, TRAIN, max_samples=20, dask=cluster.scheduler_address, check=False)

    assert asyncio.run(cell()).samples == 20
