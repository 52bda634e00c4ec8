"""Checks what a forked child finds: free locks, whole work, and files of its parent that it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from llmzip.format.plan import RowPlan
from llmzip.inference.lanes import Lanes
from llmzip.system import fileops, forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

Child = Callable[[Callable[[], object]], bool]


@pytest.fixture
def child() -> Child:
    """Whether some work succeeds in a forked child, and within the time that a hanging one is given."""

    def fork(work: Callable[[], object]) -> bool:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            number = os.fork()
        if not number:
            try:
                done = work() is not False
            except BaseException:
                done = False
            os._exit(not done)
        for _ in range(3000):
            found, status = os.waitpid(number, os.WNOHANG)
            if found:
                return status == 0
            time.sleep(0.01)
        os.kill(number, 9)
        os.waitpid(number, 0)
        return False

    return fork


@pytest.fixture
def held() -> Iterator[Callable[[object], None]]:
    """Has a thread enter a context, and stay there until the test is over."""
    ended, threads = threading.Event(), []

    def hold(context: object) -> None:
        inside = threading.Event()

        def stay() -> None:
            with context:  # type: ignore[attr-defined]
                inside.set()
                ended.wait()

        threads.append(threading.Thread(target=stay))
        threads[-1].start()
        assert inside.wait(10)

    yield hold
    ended.set()
    for thread in threads:
        thread.join()


def use(lock: forks.Lock) -> bool:
    """Whether a lock can be had; by another thread too when it was given back."""
    with lock, lock:
        pass
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(bool(lock.__enter__() or lock.__exit__() or True)))
    thread.start()
    thread.join(10)
    return found == [True]


def test_what_another_thread_holds_is_free_in_the_child(child: Child, held: Callable[[object], None]) -> None:
    lock = forks.Lock()
    held(lock)
    assert child(lambda: use(lock))
    assert child(lambda: child(lambda: use(lock)))


def test_what_the_thread_holds_that_forks_it_holds_in_both(child: Child) -> None:
    lock = forks.Lock()
    with lock:

        def look() -> bool:
            taken = threading.Event()
            thread = threading.Thread(target=lambda: lock.__enter__() or taken.set(), daemon=True)
            thread.start()
            if taken.wait(0.2):
                return False
            lock.__exit__()
            return taken.wait(10)

        assert child(look)
        assert lock._depth == 1
    assert use(lock)


def test_locks_that_are_gone_are_forgotten() -> None:
    before = len(forks._locks)
    lock = forks.Lock()
    assert len(forks._locks) == before + 1
    del lock
    assert len(forks._locks) == before


def test_a_value_that_another_thread_works_out_is_worked_out_again(child: Child) -> None:
    entered, ended = threading.Event(), threading.Event()
    here = os.getpid()

    class Thing:
        @forks.cached_property
        def value(self) -> int:
            if os.getpid() == here:
                entered.set()
                ended.wait()
            return 7

    thing = Thing()
    thread = threading.Thread(target=lambda: thing.value)
    thread.start()
    assert entered.wait(10)
    try:
        assert child(lambda: thing.value == 7)
    finally:
        ended.set()
        thread.join()
    assert thing.value == 7


def test_a_fork_waits_for_what_must_be_whole(child: Child) -> None:
    state, entered, going = [0, 0], threading.Event(), threading.Event()

    def work() -> None:
        with forks.whole, forks.whole:
            state[0] = 1
            entered.set()
            going.wait()
            time.sleep(0.1)  # the fork begins to wait meanwhile
            state[1] = 1

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(10)
    going.set()

    def look() -> bool:
        with forks.whole:
            return state == [1, 1]

    assert child(look)
    thread.join()


def test_who_forks_in_the_midst_of_such_work_goes_on_in_both(child: Child) -> None:
    def leave() -> bool:
        forks.whole.__exit__()
        return not forks.whole._depths

    with forks.whole:
        assert child(leave)
    assert not forks.whole._depths


def test_many_threads_may_work_and_several_fork(child: Child) -> None:
    ended, answers = threading.Event(), []

    def work() -> None:
        while not ended.is_set():
            with forks.whole:
                pass

    def split() -> None:
        answers.extend(child(lambda: True) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(3)]
    forking = [threading.Thread(target=split) for _ in range(2)]
    for thread in threads + forking:
        thread.start()
    for thread in forking:
        thread.join()
    ended.set()
    for thread in threads:
        thread.join()
    assert answers == [True] * 20


def test_a_fork_waits_for_imports_of_others_and_not_for_its_own(monkeypatch: pytest.MonkeyPatch, child: Child) -> None:
    module = types.ModuleType("llmzip.half")
    module.__spec__ = ModuleSpec("llmzip.half", None)
    module.__spec__._initializing = True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llmzip.half", module)
    assert forks._others_import()
    assert not eval("look()", {"__name__": "llmzip.half", "look": forks._others_import})

    def finish() -> None:
        time.sleep(0.2)
        module.__spec__._initializing = False  # type: ignore[union-attr]

    thread = threading.Thread(target=finish)
    thread.start()
    assert child(lambda: module.__spec__ is not None and not module.__spec__._initializing)  # type: ignore[attr-defined]
    thread.join()


def test_nobody_is_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch, child: Child, held: Callable[[object], None]
) -> None:
    monkeypatch.setattr(forks, "_MAX_WAIT_SECONDS", 0.1)
    held(forks.whole)

    def enter() -> None:
        with forks.whole:
            pass

    assert child(enter)


def test_a_child_leaves_the_parents_unfinished_files_alone(tmp_path: Path, child: Child) -> None:
    (tmp_path / "source").write_bytes(b"text")
    name = str(tmp_path / "out")
    with fileops.open_source(str(tmp_path / "source")) as source, fileops.Output(name, source) as output:
        output.sink.write(b"archive")
        assert child(output.discard)
        assert child(fileops.remove_unfinished)
        assert len(list(tmp_path.glob(".llmzip-*"))) == 1
        output.finish(source)
        output.publish()
    assert (tmp_path / "out").read_bytes() == b"archive"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_a_child_does_not_wait_for_lanes_of_its_parent(child: Child, hash_engine: type) -> None:
    ended = threading.Event()
    lanes = Lanes(hash_engine(), RowPlan(40, 4, 1), np.zeros(0, dtype=np.int64), 1, 4)
    with lanes:
        lanes.start(lanes.lanes[0], ended.wait)
        assert isinstance(lanes._ahead[lanes.lanes[0]], Future)
        assert child(lambda: lanes.__exit__(None, None, None))
        ended.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_can_import_what_another_thread_was_about_to_import() -> None:
    # The lock of a module is held before its import begins, when nothing else shows that it will.
    code = """
        import importlib, os, threading, time
        from llmzip.system import forks

        def hold(seconds):
            with importlib._bootstrap._ModuleLockManager("llmzip.codec.methods"):
                held.set()
                time.sleep(seconds)

        def child_imports():
            pid = os.fork()
            if pid == 0:
                import llmzip.codec.methods
                os._exit(0)
            return os.waitpid(pid, 0)[1]

        for seconds, wait in ((0.3, 60.0), (1.0, 0.1)):  # a fork that waits for it, and one that cannot wait as long
            forks._MAX_WAIT_SECONDS = wait
            held = threading.Event()
            threading.Thread(target=hold, args=(seconds,)).start()
            held.wait()
            assert forks._others_import()
            print(child_imports())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=30,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "0\n0\n"
