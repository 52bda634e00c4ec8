"""Rows, totals and tables of a benchmark: what is divided by what, what is said where nothing can be divided."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmzip.bench import chart, peers, report, results, units
from llmzip.bench.results import FAILED, LIBRARY, LLMZIP, PROGRAM, Row
from llmzip.errors import SettingsError

ROOT = Path(__file__).parents[2]
RUN = {
    "command": "llmzip bench corpora",
    "machine": {
        "processor": "a processor", "cores": 2, "memory_bytes": 8_000_000_000, "system": "Linux", "python": "3.11.7",
        "llmzip": "0.1.0", "commit": "0123456789abcdef", "uncommitted_changes": True, "load_average": [0.5, 0.4, 0.3],
        "packages": {"torch": "2.13.0", "brotli": None},
    },
}  # fmt: skip


def row(file: str = "d/a.txt", compressor: str = "gzip -9", size: int = 250, **more: Any) -> Row:
    facts: dict[str, Any] = {
        "file": file, "sha256": "00" * 32, "original_bytes": 1000, "characters": 800, "piece_bytes": None,
        "num_pieces": 1, "compressor": compressor, "via": LIBRARY, "command": compressor, "version": "1", "host": "h",
        "compressed_bytes": size, "archive_sha256": "11" * 32, "compress_times": [0.5, 0.25], "decompress_times": [0.1],
        "compress_peak_bytes": 30_000_000, "decompress_peak_bytes": 20_000_000,
    }  # fmt: skip
    return Row(**(facts | more))


def failed(file: str = "d/b.txt", compressor: str = "gzip -9") -> Row:
    return row(
        file, compressor, status=FAILED, error="killed | by\nsignal 11", compressed_bytes=None, compress_times=[],
        decompress_times=[], compress_peak_bytes=None, decompress_peak_bytes=None,
    )  # fmt: skip


def test_figures_of_a_row() -> None:
    figures = row(model_bytes=1750).figures()
    assert figures == {
        "ratio": 4.0,
        "bits_per_byte": 2.0,
        "bits_per_character": 2.5,
        "compressed_bytes_with_model": 2000,
        "ratio_with_model": 0.5,
        "bits_per_byte_with_model": 16.0,
        "bits_per_character_with_model": 20.0,
        "compress_bytes_per_second": 4000.0,  # of the fastest run
        "decompress_bytes_per_second": 10_000.0,
    }


def test_what_cannot_be_divided_is_not_known() -> None:
    empty = row(original_bytes=0, characters=0, size=20).figures()
    assert empty["compressed_bytes_with_model"] == 20
    assert all(value is None for key, value in empty.items() if key != "compressed_bytes_with_model")
    binary = row(characters=None).figures()
    assert binary["bits_per_byte"] == 2.0 and binary["bits_per_character"] is None
    assert set(failed().figures().values()) == {None}
    # A size that was never verified is not shown, wherever it may have come from.
    assert set(dataclasses.replace(row(), status=FAILED, error="not equal").figures().values()) == {None}
    assert set(report.cells(dataclasses.replace(row(), status=FAILED, error="not equal"))) == {"-"}


def test_totals_add_first_and_divide_once() -> None:
    rows = [
        row("d/a.txt", model_bytes=500),
        row("d/b.txt", original_bytes=3000, characters=2200, size=1500, model_bytes=500, compress_times=[1.75]),
    ]
    (total,) = results.totals(rows)
    assert (total.num_files, total.is_complete) == (2, True)
    assert total.model_bytes == 500  # once
    figures = total.figures()
    assert figures["ratio"] == pytest.approx(4000 / 1750)
    assert figures["bits_per_byte"] == pytest.approx(8 * 1750 / 4000)
    assert figures["bits_per_character"] == pytest.approx(8 * 1750 / 3000)
    assert figures["compressed_bytes_with_model"] == 2250
    assert figures["compress_bytes_per_second"] == pytest.approx(4000 / 2.0)
    rows[1] = dataclasses.replace(rows[1], characters=None)
    assert results.totals(rows)[0].figures()["bits_per_character"] is None


def test_no_total_where_a_file_is_missing() -> None:
    rows = [row("d/a.txt"), row("d/a.txt", "xz -9e"), failed(), row("d/b.txt", "xz -9e")]
    gzip, xz = results.totals(rows)
    assert (gzip.num_files, gzip.of_files, gzip.is_complete) == (1, 2, False)
    assert set(gzip.figures().values()) == {None} and report.remark(gzip) == "no total: 1 of 2 files"
    assert xz.is_complete and xz.figures()["ratio"] == 4.0


def test_pieces_programs_and_libraries_have_totals_of_their_own() -> None:
    rows = [
        row(),
        row(piece_bytes=500, num_pieces=2, size=300),
        row(via=PROGRAM),
        row(piece_bytes=500, num_pieces=2, via=PROGRAM),
    ]
    found = [(total.name, total.piece_bytes) for total in results.totals(rows)]
    assert found == [("gzip -9", None), ("gzip -9 (program)", None), ("gzip -9", 500), ("gzip -9 (program)", 500)]


def test_rows_come_back_from_json() -> None:
    for one in (row(methods=["mixed"], bound_bits=1.5), failed()):
        facts = json.loads(json.dumps(one.to_dict()))
        assert Row.from_dict(facts | {"of a later version": 1}) == one
    with pytest.raises(TypeError):
        Row.from_dict({"file": "a"})
    assert row().key == failed("d/a.txt").key != row(version="2").key


def test_csv_has_a_line_for_each_row() -> None:
    lines = list(csv.DictReader(io.StringIO(report.to_csv([row(), failed()]))))
    assert [line["status"] for line in lines] == ["ok", "failed"]
    assert lines[0]["compress_times"] == "0.5 0.25" and lines[0]["bits_per_byte"] == "2.0"
    assert lines[1]["compressed_bytes"] == "" and lines[1]["error"] == "killed | by\nsignal 11"
    assert report.to_csv([]) == ""


def test_markdown_holds_together_whatever_the_names() -> None:
    rows = [
        row("d/a|\x1b[31m.txt"),
        row("d/a|\x1b[31m.txt", "llmzip -6 base", 200, via=LLMZIP, model_bytes=9),
        failed(),
    ]
    text = report.to_markdown(rows, [{"file": "gone.txt", "error": "No such file or directory"}], RUN)
    assert "\x1b" not in text and "d/a\\|?[31m.txt" in text
    assert "failed: killed \\| by signal 11" in text and "no total: 1 of 2 files" in text
    assert "gone.txt: No such file" in text and "with uncommitted changes" in text
    assert "| d/a\\|?[31m.txt | 1,000 | 250 | **200** |" in text
    widths: dict[int, set[int]] = {}
    for number, line in enumerate(text.splitlines()):
        if line.startswith("|"):
            head = number if number - 1 not in widths else number - 1
            widths[number] = widths.pop(head, set()) | {line.replace("\\|", "").count("|")}
    assert widths and all(len(width) == 1 for width in widths.values())


def test_the_promise() -> None:
    others = [row(compressor="xz -9e", size=100_000), row(compressor="zstd -19", size=90_000)]
    fine, large = (row(compressor="llmzip -6 base", via=LLMZIP, size=size) for size in (90_106, 90_107))
    assert results.broken_promises([*others, fine]) == []
    assert results.broken_promises([*others, large]) == [("d/a.txt", "llmzip -6 base")]
    assert results.broken_promises([others[0], large]) == []  # not known
    assert results.broken_promises([*others, dataclasses.replace(large, piece_bytes=100)]) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0.5, "0.50 B/s"), (310, "310 B/s"), (999.6, "1000 B/s"), (3_209, "3.21 KB/s"),
        (12_345, "12.3 KB/s"), (155e6, "155 MB/s"), (2.5e9, "2.50 GB/s"),
    ],
)  # fmt: skip
def test_speed_text(value: float | None, text: str) -> None:
    assert units.speed_text(value) == text


# -- compressors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", peers.LIBRARIES, ids=lambda library: library.label)
@pytest.mark.parametrize("data", [b"", b"a", b"The tide comes in, and the tide goes out. " * 999], ids=len)
def test_libraries_give_back_what_they_got(library: peers.Library, data: bytes) -> None:
    if library.version() is None:
        pytest.skip(library.missing())
    assert library.decompress(library.compress(data)) == data


def test_choosing() -> None:
    assert peers.choose_libraries([]) == list(peers.LIBRARIES)
    assert [library.label for library in peers.choose_libraries(["zstd", "gzip -9"])] == [
        "gzip -9", "zstd -19", "zstd --ultra -22 --long=27",
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="no program 'lz5'; there are gzip, bzip2"):
        peers.choose_programs(["lz5"])


def test_command_lines_are_those_of_the_conventions() -> None:
    lines = {program.label: f"{program.family} {program.pack}" for program in peers.PROGRAMS}
    assert lines["zstd --ultra -22 --long=27"] == "zstd --ultra -22 --long=27 -q -c text > packed.zstd"
    assert lines["zpaq -m5"] == "zpaq add packed.zpaq text -m5"
    assert lines["cmix"] == "cmix -c text packed.cmix"
    assert peers.split("-d -c < ../packed.xz > text") == (["-d", "-c"], "../packed.xz", "text")
    assert [library.label for library in peers.LIBRARIES] == list(lines)[: len(peers.LIBRARIES)]


# -- chart and README ------------------------------------------------------------------------------------------------


def many_rows() -> list[Row]:
    names = ("gzip -9", "bzip2 -9", "xz -9e", "zstd -19", "zstd --ultra -22 --long=27")
    rows = [row(compressor=name, size=250 + number // 2, compress_times=[0.1]) for number, name in enumerate(names)]
    return [*rows, *(row(compressor=f"llmzip -{n} base", via=LLMZIP, size=150 - n, model_bytes=9) for n in (1, 6))]


def test_chart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert chart.draw(results.totals(many_rows()), tmp_path) is None
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    first = (tmp_path / "chart.svg").read_bytes()
    assert chart.draw(results.totals(many_rows()), tmp_path) is None
    assert (tmp_path / "chart.svg").read_bytes() == first
    assert chart.draw(results.totals([failed()]), tmp_path) == "no compressor has figures for all files"


def test_close_speeds_have_a_chart_with_marks(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        row(compressor=name, compress_times=[time], decompress_times=[time]) for name, time in (("a", 21), ("b", 26))
    ]
    assert chart.draw(results.totals(rows), tmp_path) is None
    assert chart._round_speeds(21e3, 26e3) == [] and chart._round_speeds(18e3, 60e3) == [20e3, 50e3]
    assert chart._round_speeds(5e3, 2e6) == [1e4, 1e5, 1e6]


def test_no_chart_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    reason = chart.draw(results.totals(many_rows()), tmp_path)
    assert reason is not None and "llmzip[bench]" in reason and not list(tmp_path.iterdir())


def test_tables_of_the_readme_and_of_the_benchmarks(tmp_path: Path) -> None:
    readme, document, facts = (tmp_path / name for name in ("README.md", "benchmarks.md", "results.json"))
    for file in (readme, document):
        file.write_text("before\n<!-- results: begin -->\nold\n<!-- results: end -->\nafter\n")

    def write(rows: list[Row]) -> subprocess.CompletedProcess[str]:
        facts.write_text(json.dumps(report.to_json(rows, [], RUN)))
        command = [sys.executable, str(ROOT / "tools" / "readme_tables.py"), str(facts), str(readme), str(document)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}
        )

    done = write([*many_rows(), failed(compressor="xz -9e")])
    assert done.returncode == 1 and "killed | by" in done.stderr and "old" in readme.read_text()
    assert write([row()]).returncode == 1
    rows = many_rows()
    rows += [
        dataclasses.replace(one, file="d/book1", compressed_bytes=(one.compressed_bytes or 0) - 10) for one in rows
    ]
    unmarked = document.read_text()
    document.write_text("no markers\n")
    done = write(rows)
    assert done.returncode == 1 and "benchmarks.md: no markers" in done.stderr and "old" in readme.read_text()
    document.write_text(unmarked)
    assert (write(rows).stderr, write(rows).returncode) == ("", 0)
    for file in (readme, document):
        text = file.read_text()
        assert text.startswith("before\n") and text.endswith("<!-- results: end -->\nafter\n") and "old" not in text
    assert "| file | bytes | gzip -9 | bzip2 -9 | xz -9e | zstd --ultra -22 | llmzip -1 base | llmzip -6 base |" in text
    lines = text.splitlines()
    book = next(n for n, line in enumerate(lines) if line.startswith("| book1 | 1,000 | 240 |"))
    assert lines[book].endswith("| 139 | **134** | 1.112 |")  # bits/byte of the first llmzip
    assert lines[book + 1].startswith("| a.txt |") and lines[book + 2].startswith("| all 2 | 2,000 | 490 |")
    assert (
        "| all 2 files | bytes | ratio |" in text
        and "Measured with llmzip 0.1.0, commit 0123456789ab on a processor" in text
    )
    short = readme.read_text().splitlines()[2:-2]
    assert short[0] == "| all 2 files | bytes | ratio | bits/byte | compress | decompress |"
    assert [line.split(" | ")[0] for line in short[2:]] == [
        f"| {name}"
        for name in ("gzip -9", "bzip2 -9", "xz -9e", "zstd --ultra -22", "llmzip -1 base", "llmzip -6 base")
    ]
    assert short[2].startswith("| gzip -9 | 490 | 4.082 | 1.960 | ")
