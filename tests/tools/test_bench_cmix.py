"""The comparison with published sizes: which files it accepts, what it resumes, and what its tables add up."""

import bz2
import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cmix
import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PUBLISHED = json.loads((_ROOT / "benchmarks" / "published.json").read_text(encoding="utf-8"))["tables"]

_WORDS = {f"calgary/{name}": f"{name} is a text. ".encode() * 40 for name in ("bib", "news")}
_WORDS |= {"canterbury/xargs.1": b".TH XARGS 1 " * 50, "silesia/xml": b"<a><b/></a>" * 60}

Corpus = Callable[..., Path]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """Writes short texts in place of the classic ones, with a table of published sizes and one of digests to match."""
    tables = [
        {"title": "Old", "url": "https://example.org", "source": "a page", "read": "2026-01-01", "originals": "known",
         "peers": [{"name": name, "about": "strong"} for name in ("first", "second")], "files": files}
        for files in ({name: [100, 200] for name in list(_WORDS)[:3]}, {"silesia/xml": [50, 60]})
    ]  # fmt: skip
    published = tmp_path / "published.json"
    published.write_text(json.dumps({"tables": tables}))
    items = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in _WORDS.items()}
    fetch = tmp_path / "fetch.py"
    fetch.write_text(
        "from types import SimpleNamespace as Space\n"
        f"ITEMS = {items!r}\n"
        "TABLE = {corpus: Space(items=[Space(name=name.split('/')[1], size=size, sha256=digest)\n"
        "         for name, (size, digest) in ITEMS.items() if name.split('/')[0] == corpus])\n"
        "         for corpus in ('calgary', 'canterbury', 'silesia')}\n"
    )
    monkeypatch.setattr(cmix, "_PUBLISHED", published)
    monkeypatch.setattr(cmix, "_FETCH", fetch)

    def write(**changed: bytes | None) -> Path:
        for name, data in _WORDS.items():
            path = tmp_path / "texts" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if (content := changed.get(path.name, data)) is not None:
                path.write_bytes(content)
        return tmp_path / "texts"

    return write


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the texts that were compressed; each archive has 80 bytes."""
    names: list[str] = []

    def size(name: str, data: bytes, options: list[str]) -> int:
        names.append(name)
        return 80

    monkeypatch.setattr(cmix, "archive_size", size)
    return names


def _run(folder: Path, *more: str) -> int:
    return cmix.main([str(folder), "--output", str(folder.parent / "out"), *more])


def _rows(folder: Path) -> dict[str, str]:
    lines = (folder.parent / "out" / "cmix.md").read_text(encoding="utf-8").splitlines()
    return {line.split(" | ")[0].strip("| *"): line for line in lines if line.startswith("| ")}


# -- tables ------------------------------------------------------------------------------------------------------------


def test_sizes_are_compared_for_each_file_each_corpus_and_in_sum(corpus: Corpus, compressed: list[str]) -> None:
    folder = corpus()
    assert _run(folder) == 0
    rows = _rows(folder)
    size = {name: f"{len(data):,}" for name, data in _WORDS.items()}
    assert rows["calgary/bib"] == f"| calgary/bib | {size['calgary/bib']} | 80 | 100 (80.0 %) | 200 (40.0 %) |"
    assert rows["silesia/xml"] == f"| silesia/xml | {size['silesia/xml']} | 80 | 50 (160.0 %) | 60 (133.3 %) |"
    calgary = len(_WORDS["calgary/bib"]) + len(_WORDS["calgary/news"])
    assert rows["calgary: 2 texts"].endswith(f"| {calgary:,} | 160 | 200 (80.0 %) | 400 (40.0 %) |")
    assert rows["canterbury: 1 text"].endswith("| 80 | 100 (80.0 %) | 200 (40.0 %) |")
    assert rows["all: 3 texts"].endswith("| 240 | 300 (80.0 %) | 600 (40.0 %) |")


def test_the_tables_name_the_command_and_the_sources(corpus: Corpus, compressed: list[str], capsys: Any) -> None:
    folder = corpus()
    _run(folder, "--level", "3", "--model", "small", "--only", "calgary/bib")
    document = (folder.parent / "out" / "cmix.md").read_text(encoding="utf-8")
    assert "| llmzip -3 -m small | first | second |" in document
    assert "- Source: a page, https://example.org, read on 2026-01-01." in document
    printed = capsys.readouterr().out
    assert printed.startswith("llmzip -3 -m small FILE; llmzip -d FILE.llmz; ")
    assert printed.endswith(document)


def test_the_default_model_goes_by_its_name(corpus: Corpus, compressed: list[str]) -> None:
    folder = corpus()
    _run(folder)
    assert "llmzip -9 -m base" in (folder.parent / "out" / "cmix.md").read_text(encoding="utf-8")


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_file_that_differs_is_refused_and_in_no_sum(corpus: Corpus, compressed: list[str], capsys: Any) -> None:
    data = _WORDS["calgary/news"]
    folder = corpus(bib=data[:-1], news=data[:-1] + b"!")
    assert _run(folder) == 1
    assert compressed == ["canterbury/xargs.1", "silesia/xml"]
    rows = _rows(folder)
    size, other = len(data) - 1, len(_WORDS["calgary/bib"])
    assert rows["calgary/bib"] == f"| calgary/bib | - | differs: {size} bytes instead of {other} | 100 | 200 |"
    assert rows["calgary/news"] == "| calgary/news | - | differs: not the published SHA-256 | 100 | 200 |"
    assert rows["calgary: 0 texts, 2 left out"].endswith("| - | - | - | - |")
    assert rows["all: 1 text, 2 left out"].endswith("| 80 | 100 (80.0 %) | 200 (40.0 %) |")
    assert "calgary/news: differs: not the published SHA-256" in capsys.readouterr().err


def test_a_file_that_is_missing_is_in_no_sum(corpus: Corpus, compressed: list[str]) -> None:
    folder = corpus(bib=None)
    assert _run(folder) == 1
    assert _rows(folder)["calgary/bib"] == "| calgary/bib | - | missing | 100 | 200 |"
    assert "all: 2 texts, 1 left out" in _rows(folder)


def test_a_corpus_that_is_not_there_is_left_out_and_named(corpus: Corpus, compressed: list[str], capsys: Any) -> None:
    folder = corpus()
    (folder / "silesia" / "xml").unlink()
    (folder / "silesia").rmdir()
    assert _run(folder) == 0
    assert capsys.readouterr().err == f"{folder}: left out, because it is not there: silesia\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["{}/nowhere"], r"\S+nowhere: no such folder"),
        (["{}"], r"\S+: no corpus is there; `python corpora/fetch\.py DIR --only calgary .*` downloads them"),
        (["--pieces", "{}/nowhere", "--peers", "a"], r"\S+nowhere: no such folder"),
        (["--pieces", "{}", "--peers", "{}/no.tsv"], r"\S+no\.tsv: no such file; .*"),
        (["{}", "--model", "nobody"], r".*nobody.*"),
    ],
)
def test_missing_folders_files_and_models_give_one_line(tmp_path: Path, arguments: list[str], line: str) -> None:
    with pytest.raises(SystemExit) as stop:
        cmix.main([argument.format(tmp_path) for argument in arguments])
    assert re.fullmatch(line, str(stop.value.code))


def test_a_text_that_no_table_has_is_named(corpus: Corpus, compressed: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"no such text: calgary/geo; names look like calgary/bib"):
        _run(corpus(), "--only", "calgary/geo")


# -- resuming ----------------------------------------------------------------------------------------------------------


def test_a_stopped_run_resumes_where_it_was(
    corpus: Corpus, compressed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = corpus()
    with monkeypatch.context() as broken:

        def stops(name: str, data: bytes, options: list[str]) -> int:
            if name == "calgary/news":
                raise KeyboardInterrupt
            return 70

        broken.setattr(cmix, "archive_size", stops)
        with pytest.raises(KeyboardInterrupt):
            _run(folder)
    assert _run(folder) == 0
    assert compressed == ["calgary/news", "canterbury/xargs.1", "silesia/xml"]
    assert "| 70 | 100 (70.0 %)" in _rows(folder)["calgary/bib"]


@pytest.mark.parametrize("change", [["--level", "8"], ["--model", "small"]])
def test_results_of_another_level_or_model_are_not_taken(
    corpus: Corpus, compressed: list[str], change: list[str]
) -> None:
    folder = corpus()
    _run(folder, "--only", "calgary/bib")
    _run(folder, "--only", "calgary/bib")
    _run(folder, "--only", "calgary/bib", *change)
    assert compressed == ["calgary/bib"] * 2


# -- pieces ------------------------------------------------------------------------------------------------------------


def _pieces(folder: Path, wrong: int = 0) -> tuple[Path, Path, bytes]:
    """Writes a text of 66,000 bytes and a table of its first and last piece."""
    text = b"".join(b"line %d of the text\n" % number for number in range(4000))[:66_000]
    (folder / "prose.txt").write_bytes(text)
    first, last = (len(bz2.compress(data, 9)) for data in (text[:30_000], text[-30_000:]))
    peers = folder / "peers.tsv"
    peers.write_text(f"piece\tbzip2 -9\tpaq\nprose-0\t{first}\t100\nprose-9\t{last + wrong}\t200\n")
    return folder, peers, text


def test_pieces_are_spread_from_the_first_byte_to_the_last(tmp_path: Path) -> None:
    folder, peers, text = _pieces(tmp_path)
    table = cmix.piece_table(folder, peers)
    assert [piece.data for piece in table.texts] == [text[:30_000], text[-30_000:]]
    assert table.peers == ("bzip2 -9", "paq")
    last = cmix.markdown(table, {"prose-0": 50, "prose-9": 100}, "llmzip -9").splitlines()
    assert any(line.startswith("| **all: 2 texts** | 60,000 | 150 | ") and "| 300 (50.0 %)" in line for line in last)


def test_a_piece_of_another_text_is_refused(tmp_path: Path) -> None:
    folder, peers, _ = _pieces(tmp_path, wrong=1)
    first, last = cmix.piece_table(folder, peers).texts
    assert first.fault is None
    assert last.data is None and last.fault is not None and last.fault.startswith("differs: bzip2 -9 makes ")


@pytest.mark.parametrize(
    "content", ["", "name\tpaq\nprose-0\t1\n", "piece\tpaq\nprose-0\tmany\n", "piece\tpaq\nx\t1\n"]
)
def test_a_file_that_is_no_table_of_pieces_gives_one_line(tmp_path: Path, content: str) -> None:
    folder, peers, _ = _pieces(tmp_path)
    peers.write_text(content)
    with pytest.raises(SystemExit) as stop:
        cmix.piece_table(folder, peers)
    assert re.fullmatch(r"\S+(tsv: .*|x?\.txt: no such file.*)", str(stop.value.code))


# -- round trips -------------------------------------------------------------------------------------------------------


def test_the_size_is_that_of_an_archive_that_came_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < cmix.archive_size("a", b"A text for the smallest model.\n" * 20, ["-1", "-m", "small"]) < 620
    original = cmix.llmzip

    def careless(arguments: list[str]) -> int:
        status = original(arguments)
        if "-d" in arguments:
            Path(arguments[arguments.index("-o") + 1]).write_bytes(b"another text")
        return status

    monkeypatch.setattr(cmix, "llmzip", careless)
    with pytest.raises(SystemExit, match="a: the decompressed text differs from the original"):
        cmix.archive_size("a", b"A text.\n" * 20, ["-1", "-m", "small"])


def test_a_failure_of_llmzip_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmix, "llmzip", lambda arguments: 3)
    with pytest.raises(SystemExit, match="a: llmzip ended with exit status 3"):
        cmix.archive_size("a", b"A text.\n", ["-1", "-m", "small"])


# -- the published figures ---------------------------------------------------------------------------------------------


def test_each_published_file_can_be_checked_and_has_a_size_of_each_peer() -> None:
    spec = importlib.util.spec_from_file_location("corpora_fetch", _ROOT / "corpora" / "fetch.py")
    assert spec is not None and spec.loader is not None
    fetch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fetch)
    digests = {f"{name}/{item.name}": item.sha256 for name, corpus in fetch.TABLE.items() for item in corpus.items}
    for table in _PUBLISHED:
        assert (
            table["url"].startswith("https://") and table["source"] and re.fullmatch(r"\d{4}-\d\d-\d\d", table["read"])
        )
        for name, sizes in table["files"].items():
            assert digests[name] is not None
            assert len(sizes) == len(table["peers"])


def test_published_sizes_are_those_of_the_totals_there() -> None:
    """The README's totals, less the sizes there of geo, obj1, obj2, pic, kennedy.xls, ptt5 and sum."""
    files = _PUBLISHED[0]["files"]
    calgary, canterbury = (
        [
            sum(column)
            for column in zip(*(sizes for name, sizes in files.items() if name.startswith(corpus)), strict=True)
        ]
        for corpus in ("calgary/", "canterbury/")
    )
    assert calgary[:2] == [576_710 - 42_053 - 6_990 - 40_491 - 19_633, 572_195 - 41_842 - 6_915 - 39_624 - 19_642]
    assert calgary[4:] == [577_728 - 42_651 - 7_154 - 40_380 - 21_487, 546_128 - 42_760 - 7_053 - 40_139 - 21_883]
    assert canterbury[:2] == [305_171 - 8_140 - 19_633 - 6_662, 303_457 - 7_805 - 19_642 - 6_638]
    assert canterbury[4:] == [307_705 - 7_926 - 21_487 - 6_968, 291_395 - 7_955 - 21_883 - 6_870]
