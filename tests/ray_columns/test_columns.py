"""Functions of a column, called without Ray: every form of batch and kind of cell, the same bytes as llmzip alone."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llmzip
from llmzip.codec.rows import FrameCoder
from llmzip.ray import Compress, Decompress, Measure

ROOT = Path(llmzip.__file__).resolve().parents[1]
TEXTS = [
    "The ferry was late again, and the wind came over the harbour wall in long, even gusts.",
    None,
    "",
    "Größe, Straße, Übermut. Ça va très bien, merci; où est l’été?",
    "def add(a, b):\n    return a + b\n" * 40,
    "x",
]
DATA = [None if text is None else text.encode() for text in TEXTS]
RANDOM = np.random.default_rng(7).bytes(3000)

Form = Callable[[list[Any]], Any]


def as_arrays(values: list[Any]) -> dict[str, np.ndarray]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return {"number": np.arange(len(values)), "text": array}


def as_frame(values: list[Any]) -> Any:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    index = range(10, 10 + len(values))  # as after a filter: labels are not places
    return pandas.DataFrame({"number": np.arange(len(values)), "text": values}, index=index)


def as_table(values: list[Any]) -> Any:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    return pyarrow.table({"number": np.arange(len(values)), "text": values})


def column(batch: Any, name: str) -> list[Any]:
    """The values of a column as Python's own, None for missing ones."""
    values = batch[name]
    if hasattr(values, "to_pylist"):
        return list(values.to_pylist())
    missing = values.isna() if hasattr(values, "isna") else [value is None for value in values]
    return [
        None if none else getattr(value, "item", lambda v=value: v)()
        for value, none in zip(values, missing, strict=True)
    ]


each_form = pytest.mark.parametrize("form", [as_arrays, as_frame, as_table])


@each_form
@pytest.mark.parametrize("values", [TEXTS, DATA], ids=["str", "bytes"])
def test_cells_become_the_archives_of_llmzip(form: Form, values: list[Any]) -> None:
    batch = form(values)
    done = Compress("text", model="small")(batch)
    assert type(done) is type(batch)
    expected = [None if data is None else llmzip.compress(data, model="small") for data in DATA]
    assert column(done, "text_llmz") == expected
    assert column(done, "number") == list(range(len(values)))
    again = Decompress("text_llmz", output="again")(done)
    assert column(again, "again") == DATA
    again = Decompress("text_llmz", output="again", as_text=True)(done)
    assert column(again, "again") == TEXTS
    assert "text_llmz" not in list(batch.column_names if hasattr(batch, "column_names") else batch)  # it is untouched


@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize("threads", [1, 2])
def test_neither_threads_nor_the_size_of_batches_change_an_archive(level: int, threads: int) -> None:
    texts = [f"{number}. {text}" for number in range(4) for text in TEXTS[3:]] + [RANDOM]
    expected = [llmzip.compress(text.encode() if isinstance(text, str) else text, level=level) for text in texts]
    compress = Compress("text", level=level, threads=threads)
    assert list(compress(as_arrays(texts))["text_llmz"]) == expected
    assert [compress(as_arrays([text]))["text_llmz"][0] for text in texts] == expected


def test_long_cells_among_short_ones_keep_their_places() -> None:
    texts = ["short", "long " * 9000, "short again", "another long " * 4000, None, "end"]
    batch = Compress("text", model="small", level=1, threads=2)(as_arrays(texts))
    again = Decompress("text_llmz", as_text=True, threads=2)(batch)
    assert list(again["text"]) == texts


@pytest.mark.parametrize("threads", [1, 2])
def test_short_cells_are_decoded_together(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{number}. {TEXTS[0]}" for number in range(20)]
    cells = [llmzip.compress(text.encode(), model="small", level=1 + number % 2) for number, text in enumerate(texts)]
    cells[3:3] = [None, b"not an archive", cells[0], cells[1][:-1], bytearray(cells[2])]
    texts[3:3] = [None, None, texts[0], None, texts[2]]
    together: list[int] = []
    original = FrameCoder.decode_together

    def watched(coder: FrameCoder, frames: Any) -> Any:
        together.append(len(frames))
        return original(coder, frames)

    monkeypatch.setattr(FrameCoder, "decode_together", watched)
    done = Decompress("text", output="again", as_text=True, errors="record", threads=threads)(as_arrays(cells))
    assert list(done["again"]) == texts
    assert together == [10, 10]
    assert [error is None for error in done["text_error"]] == [number not in (4, 6) for number in range(len(texts))]


def test_a_prompt_is_needed_on_both_sides() -> None:
    prompt = TEXTS[0].encode()
    texts = [TEXTS[0][:40], TEXTS[0][20:], TEXTS[0]]
    batch = Compress("text", model="small", prompt=prompt, threads=2)(as_arrays(texts))
    expected = [llmzip.compress(text.encode(), model="small", prompt=prompt) for text in texts]
    assert list(batch["text_llmz"]) == expected
    assert list(Decompress("text_llmz", prompt=prompt, as_text=True, threads=2)(batch)["text"]) == texts
    with pytest.raises(llmzip.ModelMismatchError, match="column 'text_llmz', row 2 of the batch: made with a prompt"):
        Decompress("text_llmz")(batch)


def test_an_archive_of_a_cell_decodes_with_the_command_line(tmp_path: Path) -> None:
    batch = Compress("text", model="small")(as_arrays(TEXTS))
    (tmp_path / "cell.llmz").write_bytes(batch["text_llmz"][3])
    done = subprocess.run(
        [sys.executable, "-m", "llmzip", "-dc", str(tmp_path / "cell.llmz")], cwd=ROOT, capture_output=True, check=True
    )
    assert done.stdout == DATA[3]


# -- missing cells and bad ones


@each_form
def test_columns_of_missing_cells_only(form: Form) -> None:
    batch = Compress("text", model="small")(form([None, None]))
    batch = Measure("text", model="small")(batch)
    assert column(batch, "text_llmz") == column(batch, "text_bits") == [None, None]
    assert column(Decompress("text_llmz", output="again")(batch), "again") == [None, None]


@each_form
def test_batches_without_rows(form: Form) -> None:
    batch = form(["a"])
    batch = batch.slice(0, 0) if hasattr(batch, "slice") else batch[:0] if hasattr(batch, "iloc") else as_arrays([])
    done = Measure("text", model="small")(Compress("text", model="small")(batch))
    assert column(done, "text_llmz") == column(done, "text_bits") == []


def test_what_pandas_and_numpy_take_for_missing_is_missing() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    compress = Compress("text", model="small")
    for series in (
        pandas.Series(["a", math.nan, pandas.NA], dtype=object),
        pandas.Series(["a", None, None], dtype="string"),
    ):
        done = compress(pandas.DataFrame({"text": series}))
        assert [value is None for value in done["text_llmz"]] == [False, True, True]
    assert list(compress({"text": np.array([math.nan, math.nan])})["text_llmz"]) == [None, None]


@each_form
def test_errors_are_recorded_beside_the_cells_that_failed(form: Form) -> None:
    good = llmzip.compress(b"good", model="small")
    damaged = good[:-1] + bytes([good[-1] ^ 1])
    batch = form([good, damaged, b"not an archive", good[:-3], None])
    done = Decompress("text", output="again", errors="record")(batch)
    assert column(done, "again") == [b"good", None, None, None, None]
    errors = column(done, "text_error")
    assert errors[0] is None and errors[4] is None
    assert "crc32" in errors[1] and "not an llmzip archive" in errors[2] and errors[3]
    with pytest.raises(llmzip.CorruptError, match=r"^column 'text', row 1 of the batch: "):
        Decompress("text", output="again")(batch)


def test_cells_of_another_format_version_are_named() -> None:
    old = (Path(__file__).parents[1] / "contract" / "vectors" / "unsupported-version-1.llmz").read_bytes()
    good = llmzip.compress(b"\0")
    done = Decompress("text", output="again", errors="record")(as_arrays([good, old, good + old, good]))
    assert list(done["again"]) == [b"\0", None, None, b"\0"]
    reason = "format version 1 is not supported, only version 2: llmzip 0.1 reads it"
    assert list(done["text_error"]) == [None, reason, f"archive from byte {len(good)} on: {reason}", None]
    with pytest.raises(llmzip.FormatError, match=r"^column 'text', row 1 of the batch: format version 1 "):
        Decompress("text", output="again")(as_arrays([good, old]))


def test_cells_that_are_no_text_are_errors() -> None:
    values = ["fine", 5, "lone \ud800 surrogate", 2.5]
    for make in (Compress, Measure):
        done = make("text", model="small", errors="record")(as_arrays(values))
        assert list(done["text_error"]) == [
            None,
            "neither str nor bytes: int",
            "not valid Unicode: a lone surrogate at character 5",
            "neither str nor bytes: float",
        ]
        with pytest.raises(llmzip.LLMZipError, match="row 1 of the batch: neither str nor bytes: int"):
            make("text", model="small")(as_arrays(values))


def test_bytes_that_are_no_utf8_come_back_as_bytes_only() -> None:
    batch = Compress("text", model="small")(as_arrays([RANDOM]))
    assert Decompress("text_llmz")(batch)["text"][0] == RANDOM
    with pytest.raises(llmzip.LLMZipError, match=r"not valid UTF-8 at byte .*as_text=False"):
        Decompress("text_llmz", as_text=True)(batch)
    done = Measure("text", model="small")(batch)
    assert column(done, "text_characters") == [None] and column(done, "text_bytes") == [3000]


def test_a_cell_that_would_grow_too_large_is_refused() -> None:
    batch = as_arrays([llmzip.compress(b"a" * 5000)])
    with pytest.raises(llmzip.ResourceError, match="larger than max_output_size, 4999 bytes"):
        Decompress("text", output="again", max_output_size=4999)(batch)
    assert len(Decompress("text", output="again", max_output_size=5000)(batch)["again"][0]) == 5000


def test_arguments_are_checked_when_an_object_is_made() -> None:
    with pytest.raises(ValueError, match="errors must be 'raise' or 'record', not 'skip'"):
        Compress("text", errors="skip")
    with pytest.raises(ValueError, match="level must be 1 to 9"):
        Compress("text", level=0)
    with pytest.raises(ValueError, match="output must be given: the name 'archive' does not end in _llmz"):
        Decompress("archive")
    with pytest.raises(ValueError, match="a context of 1,000,000 tokens is out of range"):
        Measure("text", context=1_000_000)
    with pytest.raises(llmzip.ModelNotFoundError):
        Compress("text", model="no/such/folder")
    with pytest.raises(TypeError, match="column must be str, not int"):
        Compress(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no column 'body'; the columns are: 'number', 'text'"):
        Compress("body", model="small")(as_arrays(["a"]))
    with pytest.raises(TypeError, match=r"must be a dict of arrays, a pandas\.DataFrame or a pyarrow\.Table, not list"):
        Compress("text", model="small")(["a"])


def test_a_column_may_be_replaced() -> None:
    batch = Compress("text", output="text", model="small")(as_table(TEXTS[:1]))
    assert batch.column_names == ["number", "text"]
    assert llmzip.decompress(batch["text"][0].as_py()) == DATA[0]


# -- measures


@pytest.fixture(scope="module")
def entropy_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What `llmzip entropy` says of the texts that are not empty, by number."""
    folder = tmp_path_factory.mktemp("texts")
    known = [number for number, text in enumerate(TEXTS) if text]
    for number in known:
        (folder / f"{number}.txt").write_bytes(DATA[number] or b"")
    names = [str(folder / f"{number}.txt") for number in known]
    command = [sys.executable, "-m", "llmzip", "entropy", "-m", "small", "--json", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(zip(known, map(json.loads, done.stdout.splitlines()), strict=True))


@each_form
def test_measures_are_those_of_the_entropy_command(form: Form, entropy_rows: dict[int, dict[str, Any]]) -> None:
    done = Measure("text", model="small", prefix="m")(form(TEXTS))
    results = {name: column(done, f"m_{name}") for name in ("bits", "coded_bits", "bytes", "characters", "tokens")}
    for number, row in entropy_rows.items():
        assert results["bits"][number] == math.ceil(row["total_bits"] - 1e-6)
        assert results["coded_bits"][number] == math.ceil(row["arithmetic_bits"] - 1e-6)
        for name in ("bytes", "characters", "tokens"):
            assert results[name][number] == row[name]
    assert [values[1] for values in results.values()] == [None] * 5
    assert [values[2] for values in results.values()] == [0] * 5


def test_measures_do_not_depend_on_batches_or_threads() -> None:
    texts = [f"{number}: {text}" for number in range(5) for text in TEXTS]
    names = ("text_bits", "text_coded_bits", "text_tokens")
    whole = Measure("text", model="small", threads=2)(as_arrays(texts))
    one = Measure("text", model="small", threads=1)
    rows = [one(as_arrays([text])) for text in reversed(texts)]
    for name in names:
        assert whole[name].dtype == np.int64
        assert [int(row[name][0]) for row in reversed(rows)] == whole[name].tolist()


def test_ray_is_not_imported() -> None:
    code = "import sys, llmzip.ray; print(sorted({'ray', 'pandas', 'pyarrow', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
