"""Compares llmzip's sizes of classic texts with those published for cmix and paq8px; `make bench-cmix CORPUS=DIR`.

DIR is a folder that corpora/fetch.py filled: calgary, canterbury and silesia are in it. The figures of the others, with
their sources, are in benchmarks/published.json; none of those programs is run. Only files with the size and SHA-256
that corpora/fetch.py lists are compressed, because figures for other versions of them would say nothing.

--pieces DIR --peers FILE adds pieces of 30,000 bytes. FILE has tab-separated columns: `piece` (prose-3 is piece 3 of
DIR/prose.txt, whose pieces 0 to 9 are spread evenly), then a column of bytes for each compressor. A column `bzip2 -9`
is used to recognise the pieces.

Each archive is decompressed and compared before its size counts. Results go to OUTPUT/cmix.jsonl as they come, and a
run that was stopped resumes where it was. At the end: the tables, also in OUTPUT/cmix.md. The exit status is 1 if a
file is missing or differs.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import hashlib
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmzip.bench import measure
from llmzip.bench.units import number_text
from llmzip.cli.main import main as llmzip
from llmzip.errors import ModelError
from llmzip.settings import EngineSettings

_PUBLISHED = Path(__file__).with_name("published.json")
_FETCH = Path(__file__).resolve().parents[1] / "corpora" / "fetch.py"
_DOWNLOAD = "calgary canterbury silesia/dickens silesia/reymont silesia/xml"

_PIECE_BYTES = 30_000
_LAST_PIECE = 9
_RECOGNISED_BY = "bzip2 -9"
"""Column that recognises a piece: every version of bzip2 writes the same bytes."""

_NOT_COUNTED = (
    "No size includes a program, a dictionary or anything trained beforehand; llmzip's model is not counted either."
)

Key = tuple[str, str, str, str]
"""Name and SHA-256 of a text, command line and version of llmzip."""


class Text(NamedTuple):
    """A text to compress, and the sizes that others make of it.

    Attributes:
        name: calgary/bib, or prose-3 for a piece.
        data: its bytes; None if it must not be compressed.
        fault: why it must not; None if it may.
        sizes: bytes under each peer of its table.
    """

    name: str
    data: bytes | None
    fault: str | None
    sizes: tuple[int, ...]

    @property
    def group(self) -> str:
        """The corpus or the domain."""
        return self.name.partition("/")[0] if "/" in self.name else self.name.rpartition("-")[0]


class Table(NamedTuple):
    """Texts with the same peers; notes say where the peers' figures come from."""

    title: str
    peers: tuple[str, ...]
    texts: tuple[Text, ...]
    notes: tuple[str, ...]


# -- what there is to compare ------------------------------------------------------------------------------------------


def classic_tables(folder: Path) -> list[Table]:
    """Reads the classic files under a folder; leaves out corpora that are not there, and reports them.

    Raises:
        SystemExit: there is none.
    """
    spec = importlib.util.spec_from_file_location("corpora_fetch", _FETCH)
    assert spec is not None and spec.loader is not None
    fetch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fetch)
    items = {f"{name}/{item.name}": item for name, corpus in fetch.TABLE.items() for item in corpus.items}
    tables, absent = [], []
    for published in json.loads(_PUBLISHED.read_text(encoding="utf-8"))["tables"]:
        corpora = dict.fromkeys(name.partition("/")[0] for name in published["files"])
        lacking = [corpus for corpus in corpora if not (folder / corpus).is_dir()]
        texts = [
            _file(name, folder / name, items[name], tuple(sizes))
            for name, sizes in published["files"].items()
            if name.partition("/")[0] not in lacking
        ]
        absent += lacking
        if texts:
            peers = published["peers"]
            notes = [f"{peer['name']}: {peer['about']}." for peer in peers]
            notes.append(f"Source: {published['source']}, {published['url']}, read on {published['read']}.")
            notes.append(f"Originals: {published['originals']}.")
            names = tuple(peer["name"] for peer in peers)
            tables.append(Table(published["title"], names, tuple(texts), tuple(notes)))
    if not tables:
        raise SystemExit(
            f"{folder}: no corpus is there; `python corpora/fetch.py DIR --only {_DOWNLOAD}` downloads them"
        )
    if absent:
        print(f"{folder}: left out, because it is not there: {', '.join(absent)}", file=sys.stderr)
    return tables


def _file(name: str, path: Path, item: Any, sizes: tuple[int, ...]) -> Text:
    """Reads a file and refuses it if it is not the published one."""
    if not path.is_file():
        return Text(name, None, "missing", sizes)
    data = path.read_bytes()
    if len(data) != item.size:
        return Text(name, None, f"differs: {len(data):,} bytes instead of {item.size:,}", sizes)
    if item.sha256 is not None and hashlib.sha256(data).hexdigest() != item.sha256:
        return Text(name, None, "differs: not the published SHA-256", sizes)
    return Text(name, data, None, sizes)


def piece_table(folder: Path, peers: Path) -> Table:
    """Reads the pieces that a table of peers lists.

    Raises:
        SystemExit: the table, the folder or a file of it is missing, or the table is not one.
    """
    if not peers.is_file():
        raise SystemExit(f"{peers}: no such file; --peers names the table of the pieces' sizes")
    with peers.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        sizes = {row.pop("piece"): {peer: int(size) for peer, size in row.items()} for row in rows}
        texts = tuple(_piece(folder, name, of_peers) for name, of_peers in sizes.items())
    except (KeyError, TypeError, ValueError) as error:
        raise SystemExit(f"{peers}: not a table of pieces and their sizes: {error}") from error
    if not texts:
        raise SystemExit(f"{peers}: lists no pieces")
    note = f"Sizes of the other compressors: {peers.name}."
    return Table(f"Pieces of {_PIECE_BYTES:,} bytes", tuple(sizes[texts[0].name]), texts, (note,))


def _piece(folder: Path, name: str, peers: dict[str, int]) -> Text:
    """Cuts a piece out of its text and refuses it if bzip2 shows that it is another one."""
    domain, _, number = name.rpartition("-")
    path = folder / f"{domain}.txt"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file, although the table of peers lists {name}")
    whole, sizes = path.read_bytes(), tuple(peers.values())
    begin = int(number) * (len(whole) - _PIECE_BYTES) // _LAST_PIECE
    data = whole[begin : begin + _PIECE_BYTES]
    packed = len(bz2.compress(data, 9))
    if packed != peers.get(_RECOGNISED_BY, packed):
        fault = f"differs: {_RECOGNISED_BY} makes {packed:,} bytes of it instead of {peers[_RECOGNISED_BY]:,}"
        return Text(name, None, fault, sizes)
    return Text(name, data, None, sizes)


# -- measuring ---------------------------------------------------------------------------------------------------------


def archive_size(name: str, data: bytes, options: list[str]) -> int:
    """Compresses with options, decompresses and compares; returns the archive's size in bytes.

    Raises:
        SystemExit: llmzip fails, or the text does not come back.
    """
    with tempfile.TemporaryDirectory() as folder:
        text, archive, back = (Path(folder) / file for file in ("text", "text.llmz", "back"))
        text.write_bytes(data)
        for words in (
            [*options, "-o", str(archive), str(text)],
            ["-d", "-o", str(back), str(archive)],
        ):
            if status := llmzip(["-q", *words]):
                raise SystemExit(f"{name}: llmzip ended with exit status {status}")
        if back.read_bytes() != data:
            raise SystemExit(f"{name}: the decompressed text differs from the original")
        return archive.stat().st_size


def recorded(log: Path) -> dict[Key, int]:
    """Reads the sizes that earlier runs stored."""
    if not log.exists():
        return {}
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return {(row["text"], row["sha256"], row["command"], row["version"]): row["archive_bytes"] for row in rows}


def measured(texts: Iterable[Text], log: Path, contender: measure.Contender) -> dict[str, int]:
    """Returns each text's archive size, from the log or by measuring it, and adds what is new to the log.

    Raises:
        SystemExit: a round trip failed.
    """
    earlier, sizes = recorded(log), {}
    options = [f"-{contender.job['level']}", "-m", contender.job["model"]]
    for text in texts:
        if text.data is None:
            continue
        key = (text.name, hashlib.sha256(text.data).hexdigest(), contender.command, contender.version)
        if key not in earlier:
            begun = time.perf_counter()
            size = archive_size(text.name, text.data, options)
            seconds = time.perf_counter() - begun
            row = dict(zip(("text", "sha256", "command", "version"), key, strict=True))
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "bytes": len(text.data), "archive_bytes": size}) + "\n")
            print(f"{text.name}: {len(text.data):,} -> {size:,} bytes, both ways in {seconds:.1f} s", flush=True)
            earlier[key] = size
        sizes[text.name] = earlier[key]
    return sizes


# -- tables ------------------------------------------------------------------------------------------------------------


def markdown(table: Table, sizes: dict[str, int], command: str) -> str:
    """Returns a table with a sum for each group and for all; files that are missing or differ count in none."""
    lines = [
        f"## {table.title}",
        "",
        f"| text | bytes | {command} | {' | '.join(table.peers)} |",
        "|---|" + "---:|" * (len(table.peers) + 2),
    ]
    groups: dict[str, list[Text]] = {}
    for text in table.texts:
        groups.setdefault(text.group, []).append(text)
    for group, texts in groups.items():
        lines += [_row(text, sizes) for text in texts]
        if len(groups) > 1:
            lines.append(_sum_row(group, texts, sizes))
    lines.append(_sum_row("all", table.texts, sizes))
    lines += ["", f"In parentheses: bytes of `{command}` in percent of the other compressor's. {_NOT_COUNTED}", ""]
    return "\n".join([*lines, *(f"- {note}" for note in table.notes), ""])


def _row(text: Text, sizes: dict[str, int]) -> str:
    if text.data is None:
        return f"| {text.name} | - | {text.fault} | {' | '.join(number_text(size) for size in text.sizes)} |"
    return _cells(text.name, len(text.data), sizes[text.name], text.sizes)


def _sum_row(name: str, texts: Sequence[Text], sizes: dict[str, int]) -> str:
    whole = [(text, len(text.data)) for text in texts if text.data is not None]
    left_out = f", {len(texts) - len(whole)} left out" if len(whole) < len(texts) else ""
    label = f"**{name}: {len(whole)} text{'' if len(whole) == 1 else 's'}{left_out}**"
    if not whole:
        return f"| {label} | - | - | {' | '.join('-' for _ in texts[0].sizes)} |"
    peers = [sum(column) for column in zip(*(text.sizes for text, _ in whole), strict=True)]
    return _cells(label, sum(size for _, size in whole), sum(sizes[text.name] for text, _ in whole), peers)


def _cells(name: str, original: int, ours: int, peers: Iterable[int]) -> str:
    cells = " | ".join(f"{size:,} ({100 * ours / size:.1f} %)" for size in peers)
    return f"| {name} | {original:,} | {ours:,} | {cells} |"


def selected(tables: Sequence[Table], names: Sequence[str] | None) -> list[Table]:
    """Keeps the named texts; all of them if none are named.

    Raises:
        SystemExit: there is no text of a name.
    """
    if not names:
        return list(tables)
    known = {text.name for table in tables for text in table.texts}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"cmix.py: no such text: {', '.join(unknown)}; names look like {min(known)}")
    kept = [table._replace(texts=tuple(text for text in table.texts if text.name in names)) for table in tables]
    return [table for table in kept if table.texts]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line asks for, prints the tables and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", metavar="DIR", type=Path, help="calgary, canterbury and silesia are in it")
    parser.add_argument("--level", type=int, choices=range(1, 10), default=9, metavar="N", help="1 to 9 (default: 9)")
    parser.add_argument("--model", default="default")
    parser.add_argument("--pieces", metavar="DIR", type=Path, help="folder of the texts that pieces are taken from")
    parser.add_argument("--peers", metavar="FILE", type=Path, help="table of the pieces' sizes under other compressors")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these texts, such as calgary/bib or prose-3")
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    options = parser.parse_args(arguments)
    if options.folder is None and options.pieces is None:
        parser.error("which folder?")
    if (options.pieces is None) != (options.peers is None):
        parser.error("--pieces and --peers need each other")
    for folder in (options.folder, options.pieces):
        if folder is not None and not folder.is_dir():
            raise SystemExit(f"{folder}: no such folder")
    try:
        contender = measure.llmzip(options.level, options.model, EngineSettings())
    except ModelError as error:
        raise SystemExit(str(error)) from error
    tables = classic_tables(options.folder) if options.folder is not None else []
    if options.pieces is not None:
        tables.append(piece_table(options.pieces, options.peers))
    tables = selected(tables, options.only)
    texts = [text for table in tables for text in table.texts]
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"{contender.command} FILE; llmzip -d FILE.llmz; llmzip {contender.version}", flush=True)
    sizes = measured(texts, options.output / "cmix.jsonl", contender)
    document = "\n".join(markdown(table, sizes, contender.command) for table in tables)
    print(f"\n{document}", end="")
    (options.output / "cmix.md").write_text(document, encoding="utf-8")
    faults = [text for text in texts if text.fault is not None]
    for text in faults:
        print(f"{text.name}: {text.fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
