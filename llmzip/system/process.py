"""The process among others: standard streams, terminals, signals; must not know click, compression or the format."""

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
    """Fills closed descriptors 0, 1 and 2, lest a file gets one of them and is hit by what is meant for a stream."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The wrong direction on purpose: reading or writing the closed stream must fail, not succeed silently.
            os.open(os.devnull, os.O_RDONLY if descriptor else os.O_WRONLY)


def share_the_cores() -> None:
    """Lets torch's waiting threads give up their core soon; must come before torch is imported.

    GNU OpenMP spins for a while by default. Beside other work that costs up to a factor of ten, alone nothing.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def address_limit() -> int | None:
    """Bytes of addresses that this process may have (ulimit -v); None if there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def spare_addresses() -> None:
    """Asks the libraries for one thread each; must come before numpy and torch are imported.

    Each thread takes addresses, and a library that gets none for its threads ends the process there and then.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def collect_rarely() -> None:
    """Lets Python look for cyclic garbage rarely: importing torch makes a million objects, and all of them stay."""
    gc.set_threshold(1 << 17)


def leave(code: int) -> NoReturn:
    """Ends the process without taking apart all that is in memory, which takes 0.2 s with torch.

    Where memory is short the libraries may also crash while they are taken apart. A profiler needs the usual way.
    """
    if sys.getprofile() is None and sys.gettrace() is None:
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError, AttributeError):  # the usual way tells what is wrong
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
    """A writer to the standard output that nobody else can reach.

    While it is open, everything else that prints to the standard output, such as a library's warning, goes to the
    standard error: one stray line would spoil the data.
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
        os.close(data)  # any error of a delayed write shows here


class StandardError(io.TextIOBase):
    """The standard error for messages and progress bars: what cannot be delivered is dropped, and stops no work.

    A non-blocking one is waited for. Where another program replaced `sys.stderr`, that one is written to.
    """

    def write(self, text: str) -> int:
        """Writes the text, or drops it. Returns its length in any case."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if self._is_replaced():
                sys.stderr.write(text)
            else:  # past Python's buffer, which would raise what it could not write once more, at any later time
                DescriptorWriter(2).write(text.encode(self.encoding, "backslashreplace"))
        return len(text)

    def write_bytes(self, data: bytes) -> int:
        """Writes ASCII, or drops it."""
        return self.write(data.decode("ascii"))

    def flush(self) -> None:
        """Hands on what a replaced `sys.stderr` holds back; nothing else is held back."""
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
    """Drops what the interpreter has not written yet: at exit it would fail on it again, with a traceback."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


# -- signals ---------------------------------------------------------------------------------------------------------


def die_by_signal(number: int) -> NoReturn:
    """Ends the process by the signal itself, so that whoever waits for it sees the true cause."""
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
    """While active, INT, TERM and HUP remove the temporary files and end the process. Ignored ones stay ignored.

    Args:
        announce: called with the signal's name before the process ends.
    """

    def handle(number: int, frame: object) -> None:
        remove_unfinished()
        announce(signal.Signals(number).name)
        die_by_signal(number)

    with _handled(handle):
        yield


@contextlib.contextmanager
def _handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Sets a handler for the signals that ask a program to end, where they are not ignored."""
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
    """While active, the first INT, TERM or HUP is put into the list, for the work to stop where nothing is lost.

    The second one ends the process at once. Ignored signals stay ignored.
    """
    asked: list[int] = []

    def handle(number: int, frame: object) -> None:
        if asked:
            die_by_signal(number)
        asked.append(number)

    with _handled(handle):
        yield asked
