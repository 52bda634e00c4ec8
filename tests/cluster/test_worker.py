"""What a worker makes of files and parts: the bytes of llmzip alone, kept where they are right, rows for what fails."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest

import llmzip
from llmzip.cluster import rows as row_files
from llmzip.cluster.job import ROWS, RUNNING, WORK, Job, Operation, bind
from llmzip.cluster.rows import Row
from llmzip.cluster.storage import open_store
from llmzip.cluster.tasks import InputFile, Task, make_tasks
from llmzip.cluster.worker import TaskResult, Worker
from llmzip.codec import drafts, levels, writer
from llmzip.codec.rows import FrameCoder
from llmzip.errors import SettingsError
from llmzip.settings import CompressSettings, DecompressSettings, EngineSettings

SMALL_PIECE, SMALL_UNIT = 1 << 11, 1 << 13
_PROSE = (Path(__file__).parents[2] / "corpora" / "prose-en.txt").read_bytes()


def make_job(
    source: Path | str, dest: Path | str, operation: Operation = Operation.COMPRESS, level: int = 1, model: str = "base"
) -> Job:
    engine = EngineSettings(device="cpu", threads=1)
    settings = CompressSettings(level, model, engine)
    return Job(
        operation, open_store(str(source)), open_store(str(dest)), settings, DecompressSettings(None, engine), "02"
    )


def input_files(job: Job, *names: str) -> list[InputFile]:
    found = []
    for name in names:
        stat = job.source.stat(name)
        assert stat is not None
        found.append(InputFile(name, stat.size_bytes, stat.etag))
    return found


def run_all(job: Job, *names: str) -> list[TaskResult]:
    files = input_files(job, *names)
    worker = Worker(job, "run")
    return [worker.run(task) for task in make_tasks(job, files, sum(file.size_bytes for file in files))]


def rows_of(results: list[TaskResult]) -> list[Row]:
    return [row for result in results for row in result.rows]


def state(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    source, dest = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    return source, dest


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of four pieces of 2 KiB, so that files of some KB have parts."""
    monkeypatch.setattr(levels, "PIECE_BYTES", SMALL_PIECE)
    monkeypatch.setattr(drafts, "PIECE_BYTES", SMALL_PIECE)
    monkeypatch.setattr(writer, "UNIT_BYTES", SMALL_UNIT)
    monkeypatch.setattr("llmzip.cluster.tasks._MIN_TASK_BYTES", SMALL_PIECE)
    monkeypatch.setattr("llmzip.cluster.tasks._MIN_CUT_ARCHIVE_BYTES", 1)


# -- whole files -----------------------------------------------------------------------------------------------------


def test_archives_are_those_of_llmzip_alone(places: tuple[Path, Path]) -> None:
    source, dest = places
    texts = {"a.txt": _PROSE[:700], "b/c.bin": random.Random(1).randbytes(300), "empty": b""}
    for name, text in texts.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(text)
    job = make_job(source, dest)
    rows = {row.path: row for row in rows_of(run_all(job, *texts))}
    assert len(rows) == 3
    for name, text in texts.items():
        archive = (dest / f"{name}.llmz").read_bytes()
        assert archive == llmzip.compress(text, level=1)
        row = rows[job.source.uri_of(name)]
        assert (row.bytes, row.bits, row.archive_bytes) == (len(text), 8 * len(archive), len(archive))
        assert row.sha256 == hashlib.sha256(text).hexdigest()
        assert row.archive_sha256 == hashlib.sha256(archive).hexdigest()
        assert row.error is None and not row.kept
    assert not list((dest / RUNNING).rglob("*.json"))


def test_what_is_right_is_kept_and_what_is_not_is_made_anew(places: tuple[Path, Path]) -> None:
    source, dest = places
    for number in range(4):
        (source / f"{number}.txt").write_bytes(_PROSE[1000 * number : 1000 * number + 500])
    job = make_job(source, dest)
    names = [f"{number}.txt" for number in range(4)]
    first = rows_of(run_all(job, *names))
    good = state(dest)
    archives = [dest / f"{name}.llmz" for name in names]
    damaged = bytearray(archives[1].read_bytes())
    damaged[-9] ^= 4
    archives[1].write_bytes(bytes(damaged))
    archives[2].write_bytes(archives[2].read_bytes()[:-3])
    archives[3].write_bytes(llmzip.compress(_PROSE[:500], level=1))  # a good archive of another text
    second = rows_of(run_all(job, *names))
    assert [row.kept for row in second] == [True, False, False, False]
    assert [row.archive_sha256 for row in second] == [row.archive_sha256 for row in first]
    assert {name: data for name, data in state(dest).items() if name.endswith(".llmz")} == {
        name: data for name, data in good.items() if name.endswith(".llmz")
    }


def test_archives_by_another_model_are_not_kept(places: tuple[Path, Path]) -> None:
    source, dest = places
    (source / "a").write_bytes(_PROSE[:600])
    run_all(make_job(source, dest, model="small"), "a")
    (row,) = rows_of(run_all(make_job(source, dest), "a"))
    assert not row.kept
    assert (dest / "a.llmz").read_bytes() == llmzip.compress(_PROSE[:600], level=1)


def test_there_and_back(places: tuple[Path, Path], tmp_path: Path) -> None:
    source, dest = places
    (source / "a.txt").write_bytes(_PROSE[:900])
    run_all(make_job(source, dest), "a.txt")
    back = make_job(dest, tmp_path / "back", Operation.DECOMPRESS)
    (row,) = rows_of(run_all(back, "a.txt.llmz"))
    assert (tmp_path / "back" / "a.txt").read_bytes() == _PROSE[:900]
    assert row.sha256 == hashlib.sha256(_PROSE[:900]).hexdigest() and not row.kept
    (row,) = rows_of(run_all(back, "a.txt.llmz"))
    assert row.kept
    (tested,) = rows_of(run_all(make_job(dest, tmp_path / "rows", Operation.TEST), "a.txt.llmz"))
    assert (tested.sha256, tested.bits, tested.output) == (row.sha256, row.bits, None)


def test_entropy_is_that_of_the_command(places: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    from llmzip.cli.main import main

    source, dest = places
    (source / "a.txt").write_bytes(_PROSE[:3000])
    (row,) = rows_of(run_all(make_job(source, dest, Operation.ENTROPY), "a.txt"))
    assert main(["entropy", "--json", str(source / "a.txt")]) == 0
    said = json.loads(capfd.readouterr().out.splitlines()[0])
    assert row.tokens == said["tokens"]
    assert row.bits == math.ceil(said["total_bits"])


# -- what fails ------------------------------------------------------------------------------------------------------


def test_a_bad_file_becomes_a_row_and_the_rest_goes_on(places: tuple[Path, Path], tmp_path: Path) -> None:
    source, dest = places
    (source / "good.llmz").write_bytes(llmzip.compress(b"good", level=1))
    bad = bytearray(llmzip.compress(_PROSE[:400], level=1))
    bad[40] ^= 1
    (source / "bad.llmz").write_bytes(bytes(bad))
    (source / "text.llmz").write_bytes(b"no archive")
    names = ["bad.llmz", "text.llmz", "good.llmz"]
    results = run_all(make_job(source, dest, Operation.DECOMPRESS), *names)
    rows = {os.path.basename(row.path): row for row in rows_of(results)}
    assert [rows[name].exit_status for name in names] == [4, 1, 0]
    assert [rows[name].error_kind for name in names] == ["CorruptError", "FormatError", None]
    assert "not an llmzip archive" in str(rows["text.llmz"].error)
    assert sorted(file.name for file in dest.iterdir()) == ["_llmzip", "good"]
    (written,) = (dest / ROWS).iterdir()
    read = row_files.read_rows(open_store(str(dest)), f"{ROWS}/{written.name}")
    assert read == rows_of(results)


@pytest.mark.parametrize("operation", [Operation.DECOMPRESS, Operation.TEST])
def test_small_archives_are_decoded_together(
    operation: Operation, places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, dest = places
    texts = {f"{number}.llmz": _PROSE[300 * number : 300 * number + 250] for number in range(8)}
    for name, text in texts.items():
        (source / name).write_bytes(llmzip.compress(text, level=1))
    (source / "3.llmz").write_bytes((source / "3.llmz").read_bytes()[:-1])
    (source / "4.llmz").write_bytes(b"no archive")
    together: list[int] = []
    original = FrameCoder.decode_together

    def watched(coder: FrameCoder, frames: Any) -> Any:
        together.append(len(frames))
        if len(together) == 1:  # meanwhile
            (source / "5.llmz").unlink()
            (source / "6.llmz").write_bytes((source / "7.llmz").read_bytes())
        return original(coder, frames)

    monkeypatch.setattr(FrameCoder, "decode_together", watched)
    job = make_job(source, dest, operation)
    task = Task(tuple(input_files(job, *texts)))
    worker = Worker(job, "run")
    rows = worker.run(task).rows
    assert together == [6]
    assert not worker._whole._held
    assert [row.exit_status for row in rows] == [0, 0, 0, 4, 1, 1, 1, 0]
    for row, text in zip(rows, texts.values(), strict=True):
        assert row.error is not None or row.sha256 == hashlib.sha256(text).hexdigest()
    alone = make_job(source, tmp_path / "alone", operation)
    expected = [Worker(alone, "run").run(Task((file,))).rows[0] for file in task.files if (source / file.name).exists()]
    assert together == [6]
    assert [(row.error, row.bits, row.tokens, row.sha256) for row in rows if "5.llmz" not in row.path] == [
        (row.error, row.bits, row.tokens, row.sha256) for row in expected
    ]


def test_nothing_is_decoded_ahead_where_outputs_are_there_or_a_process_has_died(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, dest = places
    names = [f"{number}.llmz" for number in range(4)]
    for number, name in enumerate(names):
        (source / name).write_bytes(llmzip.compress(_PROSE[300 * number : 300 * number + 250], level=1))
    job = make_job(source, dest, Operation.DECOMPRESS)
    together: list[int] = []
    original = FrameCoder.decode_together

    class Death(BaseException):
        pass

    def watched(coder: FrameCoder, frames: Any) -> Any:
        together.append(len(frames))
        if len(together) == 1:
            raise Death
        return original(coder, frames)

    monkeypatch.setattr(FrameCoder, "decode_together", watched)
    task = Task(tuple(input_files(job, *names[:3])))
    with pytest.raises(Death):
        Worker(job, "run").run(task)
    assert [row.error for row in Worker(job, "run").run(task).rows] == [None] * 3
    rows = Worker(job, "run").run(Task(tuple(input_files(job, *names)))).rows
    assert [row.kept for row in rows] == [True, True, True, False]
    assert together == [3]


def test_a_file_that_changes_is_not_recorded_as_the_old_one(places: tuple[Path, Path]) -> None:
    source, dest = places
    (source / "a").write_bytes(b"one")
    job = make_job(source, dest)
    files = input_files(job, "a")
    (source / "a").write_bytes(b"another")
    row = Worker(job, "run").run(Task(tuple(files))).rows[0]
    assert row.error is not None and "changed" in row.error and not (dest / "a.llmz").exists()
    os.remove(source / "a")
    row = Worker(job, "run").run(Task(tuple(files))).rows[0]
    assert row.error is not None and "removed" in row.error


def test_a_name_with_the_wrong_suffix_becomes_a_row(places: tuple[Path, Path]) -> None:
    source, dest = places
    (source / "a.llmz").write_bytes(b"text")
    (row,) = rows_of(run_all(make_job(source, dest), "a.llmz"))
    assert row.error == "already has the suffix .llmz" and row.exit_status == 2


def test_a_file_that_kills_processes_is_given_up(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source, dest = places
    for name in ("a", "b", "c"):
        (source / name).write_bytes(name.encode())
    job = make_job(source, dest)
    task = Task(tuple(input_files(job, "a", "b", "c")))

    class Death(BaseException):
        pass

    from llmzip.cluster import whole

    real = whole.compress_stream

    def compress(source: object, sink: object, settings: CompressSettings) -> object:
        data = source.read()  # type: ignore[attr-defined]
        if data == b"b":
            raise Death
        import io

        return real(io.BytesIO(data), sink, settings)  # type: ignore[arg-type]

    monkeypatch.setattr(whole, "compress_stream", compress)
    deaths = 0
    while True:
        try:
            result = Worker(job, "run").run(task)
            break
        except Death:
            deaths += 1
    assert deaths == 3
    assert [row.error is None for row in result.rows] == [True, False, True]
    assert result.rows[1].error_kind == "ResourceError"
    assert not list((dest / RUNNING).rglob("*.json"))


def test_an_interrupted_run_is_no_death_in_the_next_one(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, dest = places
    (source / "a").write_bytes(b"a")
    job = make_job(source, dest)
    task = Task(tuple(input_files(job, "a")))

    class Interruption(BaseException):
        pass

    from llmzip.cluster import whole

    def interrupted(*arguments: object) -> None:
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(whole, "compress_stream", interrupted)
        for run in ("first", "second", "third", "fourth"):
            with pytest.raises(Interruption):
                Worker(job, run).run(task)
    assert Worker(job, "last").run(task).rows[0].error is None


def test_rows_and_notes_may_vanish_while_they_are_read(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmzip.cluster.localstore import LocalStore

    source, dest = places
    (source / "a").write_bytes(_PROSE[:300])
    job = make_job(source, dest, Operation.ENTROPY)
    (first,) = rows_of(run_all(job, "a"))
    real = LocalStore.open

    def opened(store: LocalStore, name: str) -> object:
        if name.startswith("_llmzip"):  # another worker is quicker
            store.remove(name)
        return real(store, name)

    monkeypatch.setattr(LocalStore, "open", opened)
    (second,) = rows_of(run_all(job, "a"))
    assert (second.bits, second.error, second.kept) == (first.bits, None, False)
    monkeypatch.undo()
    (third,) = rows_of(run_all(job, "a"))
    assert (third.bits, third.kept) == (first.bits, True)


def test_a_destination_belongs_to_one_way_of_making(places: tuple[Path, Path]) -> None:
    source, dest = places
    bind(make_job(source, dest))
    bind(make_job(source, dest))
    with pytest.raises(SettingsError, match="was made with level 1; name another"):
        bind(make_job(source, dest, level=6))
    with pytest.raises(SettingsError, match="operation 'compress'"):
        bind(make_job(source, dest, Operation.ENTROPY))


OLD = (Path(__file__).parents[1] / "contract" / "vectors" / "unsupported-version-1.llmz").read_bytes()
REASON = "format version 1 is not supported, only version 2: llmzip 0.1 reads it"


@pytest.mark.parametrize("takes_over", [False, True])
def test_a_run_of_another_format_version_is_not_continued(places: tuple[Path, Path], takes_over: bool) -> None:
    source, dest = places
    job = make_job(source, dest)
    bind(job)
    run_file = dest / "_llmzip" / "run.json"
    run_file.write_text(json.dumps(json.loads(run_file.read_text()) | {"format": 1}))
    (dest / "a.llmz").write_bytes(OLD)
    before = {path: path.read_bytes() for path in (run_file, dest / "a.llmz")}
    with pytest.raises(SettingsError, match="was made with format 1; name another destination"):
        bind(job, takes_over=takes_over)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("operation", [Operation.DECOMPRESS, Operation.TEST])
@pytest.mark.parametrize("more", [b"", llmzip.compress(b"\0")], ids=["alone", "after another"])
def test_archives_of_another_format_version_have_a_row_that_names_it(
    places: tuple[Path, Path], operation: Operation, more: bytes
) -> None:
    source, dest = places
    source.mkdir(exist_ok=True)
    (source / "old.llmz").write_bytes(more + OLD)
    (row,) = rows_of(run_all(make_job(source, dest, operation), "old.llmz"))
    assert row.error is not None and row.error.endswith(REASON) and row.error_kind == "FormatError"
    assert (source / "old.llmz").read_bytes() == more + OLD and not (dest / "old").exists()


def test_a_destination_with_files_of_others_is_refused(places: tuple[Path, Path]) -> None:
    source, dest = places
    dest.mkdir()
    bind(make_job(source, dest), takes_over=False)
    (dest / "_llmzip" / "run.json").unlink()
    (dest / "mine.txt").write_text("mine")
    with pytest.raises(SettingsError, match="has files that no run made; name an empty folder, or use -f"):
        bind(make_job(source, dest), takes_over=False)
    bind(make_job(source, dest), takes_over=True)
    bind(make_job(source, dest), takes_over=False)  # it is a run's now


@pytest.mark.usefixtures("small_pieces")
def test_no_part_of_an_archive_is_measured_as_text(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmzip.cluster.tasks.ENTROPY_PART_BYTES", 500)
    source, dest = places
    (source / "a").write_bytes(llmzip.compress(random.Random(8).randbytes(1200), level=1))
    rows = rows_of(run_all(make_job(source, dest, Operation.ENTROPY), "a"))
    assert len(rows) == 3 and all("is an llmzip archive" in str(row.error) for row in rows)


# -- files in parts --------------------------------------------------------------------------------------------------


def _mixture(seed: int, size: int) -> bytes:
    """Prose, noise and repetitions by turns, so that pieces take different methods."""
    rng = random.Random(seed)
    parts = []
    while sum(map(len, parts)) < size:
        length = rng.randrange(500, 4000)
        begin = rng.randrange(len(_PROSE) - length)
        parts.append(rng.choice([_PROSE[begin : begin + length], rng.randbytes(length), b"all the same\n" * 200]))
    return b"".join(parts)[:size]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("size", [SMALL_PIECE + 1, SMALL_UNIT, SMALL_UNIT + 1, 3 * SMALL_UNIT, 3 * SMALL_UNIT + 777])
def test_parts_become_the_archive_of_llmzip_alone(places: tuple[Path, Path], size: int, tmp_path: Path) -> None:
    source, dest = places
    text = _mixture(size, size)
    (source / "big").write_bytes(text)
    job = make_job(source, dest)
    results = run_all(job, "big")
    assert len(results) == -(-size // SMALL_PIECE)
    (row,) = rows_of(results)
    assert row.error is None
    archive = (dest / "big.llmz").read_bytes()
    assert archive == llmzip.compress(text, level=1)
    assert (row.bytes, row.bits) == (size, 8 * len(archive))
    assert row.sha256 == hashlib.sha256(text).hexdigest()
    assert row.archive_sha256 == hashlib.sha256(archive).hexdigest()
    assert not list((dest / WORK).rglob("part*"))
    again = run_all(job, "big")
    assert [row.kept for row in rows_of(again)] == [True] and not any(result.lost for result in again)

    back = tmp_path / "back"
    results = run_all(make_job(dest, back, Operation.DECOMPRESS), "big.llmz")
    (row,) = rows_of(results)
    assert (back / "big").read_bytes() == text and row.sha256 == hashlib.sha256(text).hexdigest()
    tested = rows_of(run_all(make_job(dest, tmp_path / "rows", Operation.TEST), "big.llmz"))
    assert sum(row.bytes or 0 for row in tested) == size and all(row.error is None for row in tested)


@pytest.mark.usefixtures("small_pieces")
def test_parts_may_be_made_in_any_order_and_twice(places: tuple[Path, Path]) -> None:
    source, dest = places
    text = _mixture(5, 2 * SMALL_UNIT + 100)
    (source / "big").write_bytes(text)
    job = make_job(source, dest)
    tasks = list(make_tasks(job, input_files(job, "big"), len(text)))
    rng = random.Random(2)
    order = tasks + rng.sample(tasks, 4)
    rng.shuffle(order)
    results = [Worker(job, "run").run(task) for task in order]
    assert (dest / "big.llmz").read_bytes() == llmzip.compress(text, level=1)
    assert not any(result.lost for result in results)
    assert {(row.bits, row.error) for row in rows_of(results)} == {(8 * (dest / "big.llmz").stat().st_size, None)}


@pytest.mark.usefixtures("small_pieces")
def test_a_damaged_output_in_parts_is_made_anew(places: tuple[Path, Path]) -> None:
    source, dest = places
    text = _mixture(6, 2 * SMALL_UNIT + 100)
    (source / "big").write_bytes(text)
    job = make_job(source, dest)
    run_all(job, "big")
    good = (dest / "big.llmz").read_bytes()
    for place in (30, len(good) // 2, len(good) - 60):
        damaged = bytearray(good)
        damaged[place] ^= 1
        (dest / "big.llmz").write_bytes(bytes(damaged))
        rounds = [run_all(job, "big") for _ in range(2)]
        assert any(result.lost for result in rounds[0])
        assert (dest / "big.llmz").read_bytes() == good
        assert [row.error for results in rounds for row in rows_of(results)][-1] is None


@pytest.mark.usefixtures("small_pieces")
def test_a_damaged_part_is_made_anew(places: tuple[Path, Path]) -> None:
    source, dest = places
    text = _mixture(7, SMALL_UNIT)
    (source / "big").write_bytes(text)
    job = make_job(source, dest)
    tasks = list(make_tasks(job, input_files(job, "big"), len(text)))
    for task in tasks[:-1]:
        Worker(job, "run").run(task)
    (part, *_) = (dest / WORK).rglob("part-*-00000001")
    part.write_bytes(part.read_bytes()[:-20])
    (row,) = Worker(job, "run").run(tasks[-1]).rows
    assert row.error_kind == "CorruptError"
    assert rows_of([Worker(job, "run").run(task) for task in tasks])[-1].error is None
    assert (dest / "big.llmz").read_bytes() == llmzip.compress(text, level=1)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("operation", [Operation.COMPRESS, Operation.DECOMPRESS])
def test_parts_of_a_run_that_cut_the_file_otherwise_are_not_taken(
    places: tuple[Path, Path], operation: Operation
) -> None:
    source, dest = places
    text = _mixture(9, 2 * SMALL_UNIT + 100)
    archive = llmzip.compress(text, level=1)
    (source / "big").write_bytes(text)
    (source / "big.llmz").write_bytes(archive)
    job = make_job(source, dest, operation)
    files = input_files(job, "big.llmz" if job.operation.reads_archives else "big")
    coarse, fine = (list(make_tasks(job, files, size)) for size in (2 * SMALL_PIECE << 10, SMALL_PIECE))
    assert 1 < len(coarse) < len(fine)
    Worker(job, "run").run(coarse[0])
    (row,) = rows_of([Worker(job, "run").run(task) for task in fine])
    assert row.error is None
    made = (dest / ("big" if job.operation.reads_archives else "big.llmz")).read_bytes()
    assert made == (text if job.operation.reads_archives else archive)


@pytest.mark.usefixtures("small_pieces")
def test_parts_that_vanish_are_made_in_the_next_round(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmzip.cluster.localstore import LocalStore

    source, dest = places
    text = _mixture(10, SMALL_UNIT)
    (source / "big").write_bytes(text)
    job = make_job(source, dest)
    real = LocalStore.read_all

    def read_all(store: LocalStore, name: str) -> bytes:
        if name.startswith(WORK):  # a run of other inputs ends, and tidies
            store.remove_tree(WORK)
        return real(store, name)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "read_all", read_all)
        assert rows_of(run_all(job, "big")) == []
    (row,) = rows_of(run_all(job, "big"))
    assert row.error is None and (dest / "big.llmz").read_bytes() == llmzip.compress(text, level=1)


@pytest.mark.usefixtures("small_pieces")
def test_a_damaged_part_of_an_archive_has_its_row(places: tuple[Path, Path]) -> None:
    source, dest = places
    archive = bytearray(llmzip.compress(_mixture(11, 3 * SMALL_UNIT), level=1))
    archive[len(archive) // 2] ^= 1
    (source / "big.llmz").write_bytes(bytes(archive))
    job = make_job(source, dest, Operation.TEST)
    rows = rows_of(run_all(job, "big.llmz"))
    assert [row.error_kind for row in rows if row.error] == ["CorruptError"] and len(rows) > 2
    written = [row_files.read_rows(job.dest, name) for name in job.dest.names(ROWS)]
    assert sorted(row.offset for some in written for row in some or ()) == [row.offset for row in rows]
    assert sorted(row.kept for row in rows_of(run_all(job, "big.llmz"))) == [False] + [True] * (len(rows) - 1)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("cut", [-20, 0])
def test_a_damaged_unit_is_made_anew(places: tuple[Path, Path], cut: int) -> None:
    source, dest = places
    text = random.Random(13).randbytes(2 * SMALL_UNIT + 100)
    (source / "big").write_bytes(text)
    job = make_job(source, dest)
    tasks = list(make_tasks(job, input_files(job, "big"), SMALL_PIECE))
    for task in tasks[:-1]:
        Worker(job, "run").run(task)
    (unit,) = (dest / WORK).rglob("unit-00000001")
    unit.write_bytes(unit.read_bytes()[:cut] if cut else llmzip.compress(text[:100], level=1))
    (row,) = Worker(job, "run").run(tasks[-1]).rows
    assert row.error_kind == "CorruptError" and not (dest / "big.llmz").exists()
    assert rows_of([Worker(job, "run").run(task) for task in tasks])[-1].error is None
    assert (dest / "big.llmz").read_bytes() == llmzip.compress(text, level=1)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("operation", [Operation.COMPRESS, Operation.DECOMPRESS])
def test_a_file_that_is_replaced_unnoticed_between_parts_is_not_taken(
    places: tuple[Path, Path], operation: Operation
) -> None:
    """Size and time of the new file are those of the old one."""
    source, dest = places
    rng = random.Random(12)
    texts = [rng.randbytes(2 * SMALL_UNIT) for _ in range(2)]
    job = make_job(source, dest, operation)
    inputs = [llmzip.compress(text, level=1) if operation.reads_archives else text for text in texts]
    name = "big.llmz" if operation.reads_archives else "big"
    assert len(inputs[0]) == len(inputs[1])

    def put(data: bytes) -> None:
        (source / name).write_bytes(data)
        os.utime(source / name, (0, 0))

    put(inputs[0])
    tasks = list(make_tasks(job, input_files(job, name), SMALL_PIECE))
    for task in tasks[:-1]:
        assert Worker(job, "run").run(task).rows == []
    put(inputs[1])
    (row,) = Worker(job, "run").run(tasks[-1]).rows
    assert row.error is not None
    output = dest / (name.removesuffix(".llmz") if operation.reads_archives else f"{name}.llmz")
    assert not output.exists()
    for _ in range(2):
        rows = rows_of([Worker(job, "run").run(task) for task in tasks])
    assert rows[0].error is None
    assert output.read_bytes() == (texts[1] if operation.reads_archives else llmzip.compress(texts[1], level=1))


@pytest.mark.usefixtures("small_pieces")
def test_a_damaged_part_of_a_text_is_made_anew(places: tuple[Path, Path]) -> None:
    source, dest = places
    text = _mixture(8, 2 * SMALL_UNIT)
    (source / "big.llmz").write_bytes(llmzip.compress(text, level=1))
    job = make_job(source, dest, Operation.DECOMPRESS)
    tasks = list(make_tasks(job, input_files(job, "big.llmz"), SMALL_PIECE))
    for task in tasks[:-1]:
        Worker(job, "run").run(task)
    (part, *_) = (dest / WORK).rglob("part-*-00000000")
    part.write_bytes(part.read_bytes()[:-20])
    assert Worker(job, "run").run(tasks[-1]).rows[0].error_kind == "CorruptError"
    assert rows_of([Worker(job, "run").run(task) for task in tasks])[-1].error is None
    assert (dest / "big").read_bytes() == text
