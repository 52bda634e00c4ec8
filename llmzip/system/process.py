"""The process and its surroundings: standard streams, terminals, limits and signals.

Must not know click, compression or the archive format.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from .fileops import remove_unfinished
from .streams import DescriptorWriter

STDIN, STDOUT = "(stdin)", "(stdout)"

# -- standard streams and terminals ----------------------------------------------------------------------------------


def occupy_standard_descriptors() -> None:
    """Fills closed descriptors 0, 1 and 2: a file that got one of them would receive what is meant for the stream."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The wrong direction on purpose: using the closed stream must fail, not succeed silently.
            os.open(os.devnull, os.O_RDONLY if descriptor else os.O_WRONLY)


def share_the_cores() -> None:
    """Makes idle torch threads yield their core quickly; must be called before torch is imported.

    By default GNU OpenMP spins for a while. That costs up to a factor of ten on a busy machine, and nothing on a quiet
    one.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def address_limit() -> int | None:
    """Returns the limit of this process's address space in bytes (ulimit -v); None if there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def spare_addresses() -> None:
    """Limits the libraries to one thread each; must be called before numpy and torch are imported.

    Each thread takes address space, and a library that gets none for its threads aborts the process.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@contextlib.contextmanager
def one_thread_for_numpy() -> Iterator[None]:
    """Makes numpy create no threads for its linear algebra if it is imported inside.

    Nothing here multiplies float matrices with numpy, and the threads take a tenth of the time of a short run. The
    variable is removed afterwards: torch may come with a library of its own that reads it.
    """
    name = "OPENBLAS_NUM_THREADS"
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


def collect_rarely() -> None:
    """Makes Python look for cyclic garbage rarely: importing torch creates a million objects, and all of them stay."""
    gc.set_threshold(131_072)  # new objects; Python's default is 700 to 2,000


def leave(code: int) -> NoReturn:
    """Ends the process without freeing its objects one by one, which takes 0.2 s with torch.

    If memory is short, the libraries may also crash while they are freed. Under a profiler the process exits normally.
    """
    if sys.getprofile() is None and sys.gettrace() is None:
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a normal exit reports what is wrong
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)


def is_terminal(descriptor: int) -> bool:
    """Whether a descriptor is a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


@contextlib.contextmanager
def standard_output() -> Iterator[DescriptorWriter]:
    """Opens a writer to standard output that nothing else can reach.

    While it is open, everything else printed to standard output, such as a library's warning, goes to standard error:
    one stray line would damage the data.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    data = os.dup(1)
    os.dup2(2, 1)
    try:
        yield DescriptorWriter(data, is_stdout=True)
    finally:
        if sys.stdout is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
        os.dup2(data, 1)
        os.close(data)  # raises the error of a delayed write


class StandardError(io.TextIOBase):
    """Standard error for messages and progress bars; text that cannot be written is dropped and stops no work.

    If it is non-blocking, `write` waits. If `sys.stderr` was replaced, the replacement is written to.
    """

    def write(self, text: str) -> int:
        """Writes the text, or drops it; returns its length in either case."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if self._is_replaced():
                sys.stderr.write(text)
            else:  # not through Python's buffer, which would raise the error of a failed write again at a later time
                DescriptorWriter(2).write(text.encode(self.encoding, "backslashreplace"))
        return len(text)

    def write_bytes(self, data: bytes) -> int:
        """Writes ASCII, or drops it."""
        return self.write(data.decode("ascii"))

    def flush(self) -> None:
        """Flushes a replaced `sys.stderr`; nothing else is buffered."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    @staticmethod
    def _is_replaced() -> bool:
        try:
            return sys.stderr.fileno() != 2
        except OSError:  # a stream in memory
            return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(sys.stderr, "encoding", None) or "utf-8"

    def fileno(self) -> int:
        return 2

    def isatty(self) -> bool:
        return is_terminal(2)


def abandon_standard_output() -> None:
    """Drops what the interpreter has not written yet: it would fail again at exit, with a traceback."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


# -- signals ---------------------------------------------------------------------------------------------------------


def die_by_signal(number: int) -> NoReturn:
    """Ends the process by the signal itself, so that its parent sees the true cause."""
    remove_unfinished()
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        if os.name == "posix":
            os.kill(os.getpid(), number)
    os._exit(128 + number)


@contextlib.contextmanager
def signals_clean_up(announce: Callable[[str], None]) -> Iterator[None]:
    """Makes INT, TERM and HUP remove the temporary files and end the process. Ignored signals stay ignored.

    Args:
        announce: is called with the signal's name before the process ends.
    """

    def handle(number: int, frame: object) -> None:
        remove_unfinished()
        announce(signal.Signals(number).name)
        die_by_signal(number)

    with _handled(handle):
        yield


@contextlib.contextmanager
def _handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Sets a handler for the signals that ask a program to end, unless they are ignored."""
    previous: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextlib.contextmanager
def signals_ask_to_stop() -> Iterator[list[int]]:
    """Puts the first INT, TERM or HUP into a list, so that the work can stop where nothing is lost.

    A second signal ends the process at once. Ignored signals stay ignored.
    """
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if received:
            die_by_signal(number)
        received.append(number)

    with _handled(handle):
        yield received
