"""Several frames at once: results and errors in order, the same archives, and how many there may be."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmzip
from llmzip.codec import drafts
from llmzip.codec.parallel import in_order, one_at_a_time
from llmzip.codec.reader import decompress_stream
from llmzip.codec.rows import FrameCoder
from llmzip.codec.writer import compress_stream
from llmzip.format.plan import RowPlan
from llmzip.inference import capacity
from llmzip.settings import CompressSettings, DecompressSettings

TEXT = (Path(__file__).parents[2] / "corpora" / "prose-en.txt").read_bytes()[:5000]


def test_results_are_in_order_and_work_is_side_by_side() -> None:
    first_may_end = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert first_may_end.wait(30), "the second never began"
        else:
            first_may_end.set()
        return 10 * item

    assert list(in_order(range(5), work, lambda item: 3)) == [(n, 10 * n) for n in range(5)]


def test_one_at_once_takes_no_thread() -> None:
    this_thread = threading.current_thread()
    results = list(in_order(range(3), lambda item: threading.current_thread(), lambda item: 1))
    assert [thread for _, thread in results] == [this_thread] * 3


def test_no_more_are_begun_than_may_be() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    allowed = [3, 3, 3, 3, 1, 3, 2, 2, 2]
    for item, _ in in_order(range(9), work, lambda item: allowed[item]):
        assert item < 9
    assert most <= 3 and running == 0


def test_errors_come_after_what_was_before_them() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("the third")
        return item

    seen = []
    with pytest.raises(ValueError, match="the third"):
        for item, _ in in_order(range(6), work, lambda item: 3):
            seen.append(item)
    assert seen == [0, 1]


def test_errors_of_the_source_come_after_the_results_too() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("no more")

    seen = []
    with pytest.raises(OSError, match="no more"):
        for item, _ in in_order(items(), lambda item: item, lambda item: 5):
            seen.append(item)
    assert seen == [0, 1, 2]


def test_items_are_taken_no_further_than_needed() -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(10):
            taken.append(n)
            yield n

    results = in_order(items(), lambda item: item, lambda item: 2)
    next(results)
    assert len(taken) <= 3
    results.close()


def test_errors_of_the_question_come_after_the_results_too() -> None:
    def at_once(item: int) -> int:
        if item == 3:
            raise RuntimeError("no driver")
        return 4

    seen = []
    with pytest.raises(RuntimeError, match="no driver"):
        for item, _ in in_order(range(6), lambda item: item, at_once):
            seen.append(item)
    assert seen == [0, 1, 2]


def test_frames_of_a_pipe_come_as_soon_as_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes waits for the text of each frame."""
    monkeypatch.setattr(capacity, "frames_at_once", lambda *arguments: 3)
    compressor = llmzip.Compressor()
    parts = [TEXT[n : n + 700] for n in range(0, 2100, 700)]
    archive = [compressor.compress(part) + compressor.flush(compressor.FLUSH_FRAME) for part in parts]
    archive.append(compressor.flush())
    read, write = os.pipe()
    seen: list[bytes] = []

    class Sink(io.RawIOBase):
        def write(self, data: Any) -> int:
            seen.append(bytes(data))
            os.write(write, archive[len(seen)])
            if len(seen) == len(parts):
                os.close(write)
            return len(data)

    os.write(write, archive[0])
    watchdog = threading.Timer(60, os._exit, [1])
    watchdog.start()
    with open(read, "rb", buffering=0) as source:
        decompress_stream(source, Sink(), DecompressSettings())  # type: ignore[arg-type]
    watchdog.cancel()
    assert b"".join(seen) == b"".join(parts)


def test_progress_from_threads_adds_up() -> None:
    total = [0]

    def slow(done: int) -> None:
        before = total[0]
        threading.Event().wait(0.0001)
        total[0] = before + done

    report = one_at_a_time(slow)
    assert report is not None and one_at_a_time(None) is None
    threads = [threading.Thread(target=lambda: [report(1) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total[0] == 200


@pytest.mark.parametrize("level", [1, 6])
def test_archives_are_the_same_however_many_frames_are_made_at_once(
    level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "PIECE_BYTES", 600)
    settings = CompressSettings(level=level)

    def packed() -> tuple[bytes, list[int]]:
        sink, reported = io.BytesIO(), []
        compress_stream(io.BytesIO(TEXT), sink, settings, reported.append)
        return sink.getvalue(), reported

    expected, _ = packed()
    assert len(llmzip.info(expected).archives[0].frames) > 3
    monkeypatch.setattr(capacity, "frames_at_once", lambda *arguments: 3)
    archive, reported = packed()
    assert archive == expected and sum(reported) == len(TEXT)
    reported, sink = [], io.BytesIO()
    report = decompress_stream(io.BytesIO(expected + expected), sink, DecompressSettings(), reported.append)
    assert sink.getvalue() == TEXT + TEXT and sum(reported) == 2 * len(TEXT)
    assert [frame.original_bytes for frame in report.frames] == 2 * [
        frame.original_bytes for frame in llmzip.info(expected).archives[0].frames
    ]
    # What comes before a damaged frame is written, what comes after it is not.
    damaged = bytearray(expected)
    damaged[-len(expected) // 3] ^= 1
    sink = io.BytesIO()
    with pytest.raises(llmzip.CorruptError):
        decompress_stream(io.BytesIO(bytes(damaged)), sink, DecompressSettings())
    whole = [frame.original_bytes for frame in llmzip.info(expected).archives[0].frames]
    assert len(sink.getvalue()) in [sum(whole[:n]) for n in range(3, len(whole))] and TEXT.startswith(sink.getvalue())


def test_frames_take_turns_where_there_are_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines on the processor stand for two devices."""
    from llmzip.inference import load
    from llmzip.settings import EngineSettings

    monkeypatch.setattr(drafts, "PIECE_BYTES", 600)
    expected = llmzip.compress(TEXT)
    pair = [EngineSettings(batch_tokens=100), EngineSettings(batch_tokens=101)]
    monkeypatch.setattr(load, "all_devices", lambda settings: pair)
    monkeypatch.setattr(capacity, "frames_at_once", lambda *arguments: 4)
    used: set[int] = set()

    def noted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(frame_coder: FrameCoder, *arguments: Any) -> Any:
            used.add(frame_coder.engine.batch_tokens)
            return method(frame_coder, *arguments)

        return call

    monkeypatch.setattr(FrameCoder, "encode", noted(FrameCoder.encode))
    monkeypatch.setattr(FrameCoder, "decode", noted(FrameCoder.decode))
    assert llmzip.compress(TEXT) == expected and used == {100, 101}
    used.clear()
    assert llmzip.decompress(expected) == TEXT and used == {100, 101}


def test_frames_at_once_have_threads_and_memory(
    hash_engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = RowPlan(10_000, 100, 3)
    engine = hash_engine()
    monkeypatch.setattr(capacity.os, "cpu_count", lambda: 64)
    for threads, expected in ((2, 1), (15, 1), (16, 2), (64, 8)):
        monkeypatch.setattr(capacity.threads, "count", lambda threads=threads: threads)
        assert capacity.frames_at_once(engine, plan, mixed=True) == expected
    needed = engine.step_bytes(100, 64, plan.steps)
    monkeypatch.setattr(capacity, "free_bytes", lambda device: 6 * needed)
    assert capacity.frames_at_once(engine, plan, mixed=False) == 3
    monkeypatch.setattr(capacity, "free_bytes", lambda device: 0)
    assert capacity.frames_at_once(engine, plan, mixed=False) == 1
    engine.stepwise = True
    assert capacity.frames_at_once(engine, plan, mixed=False) == 1
