"""Programs that use llmzip, fork, and use it again in the children: `python forked.py SCENARIO WORK FOLDER`.

They run in an interpreter of their own, because a fork copies what the tests of one process have left behind. A child
that hangs is killed and makes its program fail. FOLDER is a checkpoint's.
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

import llmzip
from llmzip.codec import drafts
from llmzip.format.headers import FrameHeader
from llmzip.system import forks

DEADLINE_SECONDS = 120
SOURCE = Path(llmzip.__file__).parent / "api" / "file.py"

Work = Callable[[], object]

made: list[bytes] = []
"""Archives of this process and of those it was forked from."""

# From Python 3.12 on a fork beside threads warns that the child may hang; that it does not is what is tried here.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)


def embedded() -> None:
    """A round trip by the embedded model and the mixer."""
    text = SOURCE.read_bytes()[:7000]
    archive = llmzip.compress(text)
    assert len(archive) < len(text) // 3, "the model was not used"
    assert llmzip.decompress(archive) == text


def _stored(data: bytes) -> drafts.Draft:
    return drafts.Draft(FrameHeader.stored(len(data)), data, data)


def _by_checkpoint(arithmetic: str, level: int, num_bytes: int) -> None:
    """A round trip by a tiny checkpoint; what needs no model would beat it and is not tried."""
    drafts._plain_draft = drafts._adaptive_draft = _stored
    text, folder = SOURCE.read_bytes()[:num_bytes], Path(sys.argv[3])
    compressor = llmzip.Compressor(model=folder, arithmetic=arithmetic, level=level)
    archive = compressor.compress(text) + compressor.flush()
    made.append(archive)
    assert llmzip.info(archive).archives[0].frames[0].tokens, "the model was not used"
    assert llmzip.decompress(archive, model=folder) == text


def checkpoint() -> None:
    """A round trip by a checkpoint's integers and the mixer."""
    _by_checkpoint("exact", 6, 2000)


def in_float() -> None:
    """A round trip by transformers."""
    _by_checkpoint("float", 6, 500)


def fork(work: Work) -> int:
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
def busy(work: Work) -> Iterator[None]:
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


def after_use(work: Work) -> None:
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


def in_the_middle(work: Work) -> None:
    """Forks while a thread is at work, each child does the same."""
    work()
    with busy(work):
        for _ in range(20 if work is embedded else 6):
            wait(fork(work))


def at_the_first_use(work: Work) -> None:
    """Forks while a thread imports and compiles what the first use needs."""
    assert "torch" not in sys.modules
    with busy(work):
        children = []
        for _ in range(4):
            children.append(fork(work))
            time.sleep(0.1)
        for child in children:
            wait(child)


def servers(work: Work) -> None:
    """A master that has used the model before it forks its workers, which answer on several threads."""
    work()

    def serve() -> None:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()

    workers = [fork(serve) for _ in range(2)]
    for worker in workers:
        wait(worker)


def keeping_settings(work: Work) -> None:
    """The program's own settings of torch hold in the child, whatever a thread was doing, and its work is done too."""
    import torch

    torch.set_num_threads(3)
    work()

    def look() -> None:
        assert torch.get_num_threads() == 3
        assert not torch.are_deterministic_algorithms_enabled()
        assert float(torch.ones(1 << 20).sum()) == 1 << 20
        work()

    look()
    wait(fork(look))
    with busy(work):
        for _ in range(3):
            wait(fork(look))


def without_dismissal(work: Work) -> None:
    """An OpenMP that cannot dismiss its threads: a child uses one, and refuses a float archive that needs several."""
    import torch

    work()
    fragile = forks._openmp()[0]
    forks._openmp = lambda: (fragile, None)  # type: ignore[assignment]  # as GCC 8 and older have it

    def look() -> None:
        assert torch.get_num_threads() == (1 if fragile else 2)
        work()
        if work is in_float and fragile:
            try:
                llmzip.decompress(made[0], model=Path(sys.argv[3]))
            except llmzip.EngineError as error:
                assert "2 threads" in str(error) and "spawn" in str(error)
            else:
                raise AssertionError("the archive of two threads was decoded by one")

    wait(fork(look))
    work()


if __name__ == "__main__":
    globals()[sys.argv[1]](globals()[sys.argv[2]])
    print("done")
