"""What some work may take: when it has to have ended, and how much memory it has."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LEAST = 1 << 27  # bytes: with less than that, nothing can be said at all
_LACKS = (  # in small letters; of C++, Python and numpy, ONNX Runtime, the system, OpenBLAS, and who loads libraries
    *("bad_alloc", "memoryerror", "unable to allocate", "failed to allocate memory", "cannot allocate memory"),
    *("can't start new thread", "resource temporarily unavailable", "pthread_create failed"),
    *("memory allocation still failed", "failed to map segment"),
)


@dataclass(frozen=True)
class Deadline:
    """A point in time, by ``time.monotonic``. It is looked at between steps, so that what is known by then is kept."""

    at: float = float("inf")

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds until then."""
        return self.at - time.monotonic()

    @property
    def is_over(self) -> bool:
        return self.left <= 0

    def heed(self) -> None:
        """To be asked between steps of what is worth nothing unless it comes to its end.

        Raises:
            TimeoutError: The time is over.
        """
        if self.is_over:
            raise TimeoutError


NEVER = Deadline()


@dataclass(frozen=True)
class Limits:
    """What some work may take: seconds, and bytes of memory for the process that does it (None: what there is)."""

    seconds: float = 1800.0
    memory: int | None = None

    @property
    def allowed(self) -> int | None:
        """The limit of memory, None where it is not known what there is."""
        return self.memory or _available()


def tells_of_a_lack(text: str) -> bool:
    """Whether a message says that there was too little memory, or that no process or thread could be started."""
    return any(words in text.lower() for words in _LACKS)


@contextmanager
def held_to(memory: int | None) -> Iterator[None]:
    """Lets this process have so many bytes more than it has now; what it asks for beyond that is a MemoryError."""
    if memory is None or (held := _held()) is None:
        yield
        return
    import resource  # noqa: PLC0415 -- not everywhere

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    others = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([held + max(memory, _LEAST), *others]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _held() -> int | None:
    """Bytes of data that this process has, None where the system does not say."""
    import resource  # noqa: PLC0415 -- not everywhere

    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * resource.getpagesize()
    except OSError:
        return None


def _available() -> int | None:
    """Bytes of memory that processes can still have, None if this system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = dict(line.split(":") for line in lines)
    return int(found["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in found else None
