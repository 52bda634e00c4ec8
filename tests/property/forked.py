"""Programs that use llmzip, fork, and use it again in the children: `python forked.py SCENARIO FOLDER`.

They run in an interpreter of their own, because a fork copies what the tests of one process have left behind. A child
that hangs is killed and makes its program fail.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llmzip
from llmzip.codec import compress_stream, decompress_stream  # noqa: F401 - what a server would have imported

DEADLINE_SECONDS = 120
TEXT = (Path(llmzip.__file__).parent / "file.py").read_bytes()[: 1200 if os.environ.get("LLMZIP_KERNELS") else 7000]
FOLDER = Path(sys.argv[2])

# From Python 3.12 on a fork beside threads warns that the child may hang; that it does not is what is tried here.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)


def exact() -> None:
    """A round trip by the embedded model and the mixer."""
    archive = llmzip.compress(TEXT)
    assert b"embedded" not in archive and len(archive) < len(TEXT) // 2
    assert llmzip.decompress(archive) == TEXT


def in_float() -> None:
    """A round trip by transformers."""
    text = TEXT[:300]
    compressor = llmzip.Compressor(model=FOLDER, arithmetic="float", level=1)
    archive = compressor.compress(text) + compressor.flush()
    assert llmzip.decompress(archive, model=FOLDER) == text


def fork(work: Callable[[], Any]) -> int:
    """A child that does some work; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> None:
    """Waits for a child, which must have done its work."""
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert status == 0, f"the child ended with status {status}"
            return
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


@contextmanager
def busy(work: Callable[[], Any]) -> Iterator[None]:
    """A thread that does some work again and again."""
    ended, errors = threading.Event(), []

    def loop() -> None:
        try:
            while not ended.is_set():
                work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not errors, errors


def after_use(work: Callable[[], Any] = exact) -> None:
    """os.fork() and multiprocessing, each after use in the parent; then the parent again, and a child of a child."""
    work()
    wait(fork(work))
    work()
    wait(fork(lambda: wait(fork(work))))
    context = multiprocessing.get_context("fork")
    process = context.Process(target=work)
    process.start()
    wait(process.pid or 0)
    with context.Pool(2) as pool:
        for answer in [pool.apply_async(work) for _ in range(3)]:
            answer.get(DEADLINE_SECONDS)
    work()


def in_the_middle(work: Callable[[], Any] = exact, forks: int = 20) -> None:
    """Forks while a thread is at work, each child does the same."""
    work()
    with busy(work):
        for _ in range(forks):
            wait(fork(work))


def at_the_first_use() -> None:
    """Forks while a thread imports what the first use needs, and compiles."""
    assert "torch" not in sys.modules
    with busy(exact):
        children = []
        for _ in range(3):
            children.append(fork(exact))
            time.sleep(0.2)
        for child in children:
            wait(child)


def servers() -> None:
    """A master that has loaded the model, workers that answer on several threads, and one that replaces a worker."""
    exact()

    def serve() -> None:
        threads = [threading.Thread(target=exact) for _ in range(2)]
        for thread in threads:
            thread.start()
        exact()
        for thread in threads:
            thread.join()

    workers = [fork(serve) for _ in range(2)]
    for worker in workers:
        wait(worker)
    wait(fork(serve))


def threads_are_kept() -> None:
    """The numbers of threads that the program chose hold in parent and child, for its own work with torch too."""
    import torch

    torch.set_num_threads(3)
    exact()

    def look() -> None:
        assert torch.get_num_threads() == 3
        assert float(torch.ones(1 << 20).sum()) == 1 << 20

    look()
    wait(fork(look))
    look()


def without_dismissal() -> None:
    """An OpenMP whose threads cannot be dismissed: the child uses one thread, which is slow and does not hang."""
    from llmzip import forks

    exact()
    fragile = forks._openmp()[0]
    forks._openmp = lambda: (fragile, None)  # type: ignore[assignment]  # as before GCC 9

    def look() -> None:
        import torch

        assert torch.get_num_threads() == (1 if fragile else 2)
        exact()

    wait(fork(look))


def float_after_use() -> None:
    """As `after_use`, by the float engine."""
    after_use(in_float)


def float_in_the_middle() -> None:
    """As `in_the_middle`; and the child has the settings of torch that the program has chosen."""
    import torch

    def work() -> None:
        assert not torch.are_deterministic_algorithms_enabled()
        in_float()

    in_float()
    with busy(in_float):
        for _ in range(8):
            wait(fork(work))


def float_without_dismissal() -> None:
    """Where the child has one thread, the float engine refuses to compute with another number than was asked for."""
    from llmzip import forks

    in_float()
    fragile = forks._openmp()[0]
    forks._openmp = lambda: (fragile, None)  # type: ignore[assignment]

    def refused() -> None:
        try:
            in_float()
        except llmzip.EngineError as error:
            assert fragile and "spawn" in str(error)
        else:
            assert not fragile

    wait(fork(refused))


if __name__ == "__main__":
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    globals()[sys.argv[1]]()
    print("done")
