"""Downloads public benchmark corpora and verifies them. Must not import llmzip.

The files are not part of the project and are not covered by its licence. Data
from the network is not trusted: archives are unpacked by name into folders
chosen here, never where a member asks to go, and a file gets its final name
only if its size and hash are right.

Usage:
    python corpora/fetch.py DIR [--only NAME ...] [--base-url URL]
    python corpora/fetch.py --list

A NAME is a set ("calgary") or one file of a set ("calgary/book1").
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import http.client
import os
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

CHUNK = 1 << 16
TIMEOUT_SECONDS = 60
# An archive may hold small files besides those in the table, and has headers.
SLACK = 4 << 20
MAX_MEMBERS = 1000


class Item(NamedTuple):
    """A file as published. Without a hash only its size can be checked."""

    name: str
    size: int
    sha256: str | None


class Corpus(NamedTuple):
    url: str
    items: tuple[Item, ...]


class Member(NamedTuple):
    """A regular file in an archive."""

    name: str
    open: Callable[[], BinaryIO]


class FetchError(Exception):
    """An error that keeps a file from being fetched; its text is for the user."""


def corpus(url: str, lines: str) -> Corpus:
    """Reads a block of "hash size name" lines; "-" stands for no hash."""
    items = []
    for line in lines.split("\n"):
        if line.strip():
            digest, size, name = line.split()
            items.append(Item(name, int(size), None if digest == "-" else digest))
    return Corpus(url, tuple(items))


# Sizes are those the publishers give. Hashes were computed from copies of the
# files, which for alice29.txt, lcet10.txt, plrabn12.txt and world192.txt had
# lost their CRLF line ends and had them put back. A "-" means that no complete
# copy was at hand; it is not to be filled in from a download that was not
# compared with anything.
TABLE = {
    "calgary": corpus(
        "https://corpus.canterbury.ac.nz/resources/calgary.tar.gz",
        """
        0f1a13936e358191533aca4a32ff42906d1b7f641f3afb0a90458b2410419fcf    111261 bib
        9ffa47cd93bccd732f20e0c304203cfbc1b8a91bedac536e2d8f6051003d9951    768771 book1
        c8538730cf2ce6a243acf3eb299c43d619b5c695d892f4884df796c13081fdf8    610856 book2
        -                                                                   102400 geo
        7f0482f9774681429eb7021050c17966f6acf19450e170de6611e1ed953d42e8    377109 news
        -                                                                    21504 obj1
        -                                                                   246814 obj2
        8d9c42d9fa58b5bce1a8b5fae3cc27c9eb7cc7a032bc12a633d44e816497e143     53161 paper1
        dc4b9cf68094c632a920f4e76d0a0a8b9617b624c36928ca46a5d29798c5bbbe     82199 paper2
        c3e1ba94849992147cf68531311cf6512c9032b88f548d3e2d62cb659aef19d8     46526 paper3
        aeecc3ff5b2e497e35fbd2d2190627fff4818dabf7aee9734ac090c21b04739b     13286 paper4
        7a4b1ee6aa419ca362a9bbae383287fe8fee4324c9d6aefa7e94b6d845452ee8     11954 paper5
        8f38dd101a4e0c0e4acefec93d5da8198db593557e9e0019140e2dff24b1b080     38105 paper6
        -                                                                   513216 pic
        151377a9d6aa9b7e872000269707a15e2b038c826340628e6f4d8b4db9ec3c19     39611 progc
        9388db0cfb71ffbe5687d381819a5ff69cdd992d6931e0cf81a310a1caed0ba0     71646 progl
        d0cd70ab5f7381a8584b25fa73b3608571a17ee1042cc5c546f63b904614d1bc     49379 progp
        117a00c6af3e1c57f20013a8f1b468158f70634f685a348bedb7e4069cdd576a     93695 trans
        """,
    ),
    "canterbury": corpus(
        "https://corpus.canterbury.ac.nz/resources/cantrbry.tar.gz",
        """
        7467306ee0feed4971260f3c87421154a05be571d944e9cb021a5713700c38f0    152089 alice29.txt
        eaa3526fe53859f34ecdf255712f9ecf0b2c903451d4755b2edaa2e2599cb0fc    125179 asyoulik.txt
        e0cd21cef5b6c4069461e949be100080c3ce887de6f1dd8626c480528efaaf61     24603 cp.html
        85d73e354cc50cec76cb5a50537cf8dc035f8cbb8480f9e1cbe2f7d6c23393c7     11150 fields.c
        1b0805dfc0ae706b35aac2bb4e15f02485efd24dda5dbd29de7b2f84d1a88c15      3721 grammar.lsp
        -                                                                  1029744 kennedy.xls
        5314ba1dbb03f471df88bec6cd120a938ef60d0fd3511c5c1dce61bf7463245f    426754 lcet10.txt
        07e2e0b461af78c7c647cb53dab39de560198e16f799b4516eccf0fbd69f764c    481861 plrabn12.txt
        -                                                                   513216 ptt5
        -                                                                    38240 sum
        c58aeb5d2d1e12751d47e7412b45784405fc30a5671b03d480fa05776e183619      4227 xargs.1
        """,
    ),
    "large": corpus(
        "https://corpus.canterbury.ac.nz/resources/large.tar.gz",
        """
        -                                                                  4638690 E.coli
        4e0a7e8dff7d9c82dbded57305c0ca3cdd3c4ca014db27121782fe9710f4723f   4047392 bible.txt
        1aebdc97d29904b25791da9aa32be90b69d7da6dc0ac9b95512ed27ed40d2112   2473400 world192.txt
        """,
    ),
    "artificial": corpus(
        "https://corpus.canterbury.ac.nz/resources/artificl.tar.gz",
        """
        ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb         1 a.txt
        6d1cf22d7cc09b085dfc25ee1a1f3ae0265804c607bc2074ad253bcc82fd81ee    100000 aaa.txt
        bc634ceb27746878af610424e3afd5024f31e06f1f3479deda6cb33a21258bf7    100000 alphabet.txt
        f939ba0ca704df5e4665fca1d934411c856cf4409898c276ed26a3e591729201    100000 random.txt
        """,
    ),
    "miscellaneous": corpus(
        "https://corpus.canterbury.ac.nz/resources/misc.tar.gz",
        """
        387877db67fdddbde761c053c4376e0b411b10fd2b126fd8b1249963cb628877   1000000 pi.txt
        """,
    ),
    "silesia": corpus(
        "http://sun.aei.polsl.pl/~sdeor/corpus/silesia.zip",
        """
        b24c37886142e11d0ee687db6ab06f936207aa7f2ea1fd1d9a36763c7a507e6a  10192446 dickens
        -                                                                 51220480 mozilla
        -                                                                  9970564 mr
        -                                                                 33553445 nci
        -                                                                  6152192 ooffice
        -                                                                 10085684 osdb
        0eac0114a3dfe6e2ee1f345a0f79d653cb26c3bc9f0ed79238af4933422b7578   6627202 reymont
        -                                                                 21606400 samba
        -                                                                  7251944 sao
        -                                                                 41458703 webster
        -                                                                  8474240 x-ray
        0e82e54e695c1938e4193448022543845b33020c8be6bf3bf3ead2224903e08c   5345280 xml
        """,
    ),
    "enwik8": corpus(
        "http://mattmahoney.net/dc/enwik8.zip",
        """
        -                                                                100000000 enwik8
        """,
    ),
}


# --- downloading -------------------------------------------------------------


def copy(source: BinaryIO, target: BinaryIO, limit: int) -> tuple[int, str]:
    """Copies at most limit bytes and returns their number and SHA-256.

    Raises:
        FetchError: there is more than that.
    """
    digest, total = hashlib.sha256(), 0
    while chunk := source.read(min(CHUNK, limit + 1 - total)):
        total += len(chunk)
        if total > limit:
            raise FetchError(f"longer than {limit} bytes")
        digest.update(chunk)
        target.write(chunk)
    return total, digest.hexdigest()


def download(url: str, path: Path, limit: int) -> None:
    """Downloads a URL to a path.

    Raises:
        FetchError: there is nothing, too much or too little.
    """
    # urlopen would also read local files and FTP.
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise FetchError(f"not an http address: {url}")
    request = urllib.request.Request(url, headers={"User-Agent": "llmzip-fetch/1"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            promised = response.headers.get("Content-Length")
            with path.open("wb") as file:
                total, _ = copy(response, file, limit)
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(f"cannot download {url}: {error}") from error
    if promised is not None and promised != str(total):
        raise FetchError(f"download ended after {total} of {promised} bytes")


def address(entry: Corpus, base_url: str | None) -> str:
    if base_url is None:
        return entry.url
    return base_url.rstrip("/") + "/" + entry.url.rsplit("/", 1)[1]


# --- reading archives --------------------------------------------------------


def check_name(name: str) -> None:
    """Refuses member names that lead out of the archive's folder.

    Raises:
        FetchError: the name is absolute, climbs, or is meant for Windows.
    """
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or "\0" in name or ":" in name:
        raise FetchError(f"archive refused: member {name!r} points outside")


@contextmanager
def archive_errors() -> Iterator[None]:
    """Turns errors of unpacking, such as bad input or a full disk, into FetchError."""
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:
        raise FetchError(f"cannot unpack: {error}") from error


@contextmanager
def tar_members(path: Path, limit: int) -> Iterator[list[Member]]:
    """Unpacks and opens a .tar.gz, and lists the regular files in it."""
    plain = path.with_suffix(".plain")
    # Unpacked first, under the limit: tarfile would follow a few compressed
    # bytes to any number of gigabytes, some of them straight into memory.
    with gzip.open(path, "rb") as packed, plain.open("wb") as file:
        copy(packed, file, limit)
    with tarfile.open(plain, "r:") as tar:
        yield [Member(info.name, lambda info=info: tar.extractfile(info)) for info in tar_headers(tar)]


def tar_headers(tar: tarfile.TarFile) -> Iterable[tarfile.TarInfo]:
    for number, info in enumerate(tar):
        if number >= MAX_MEMBERS:
            raise FetchError("archive refused: too many members")
        check_name(info.name)
        if info.isreg():
            yield info
        elif not info.isdir():
            raise FetchError(f"archive refused: {info.name!r} is a link or a device")


@contextmanager
def zip_members(path: Path, _limit: int) -> Iterator[list[Member]]:
    """Opens a .zip and lists the files in it.

    Nothing is unpacked here, so the limit is not needed: extract has its own.
    """
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if len(infos) > MAX_MEMBERS:
            raise FetchError("archive refused: too many members")
        for info in infos:
            check_name(info.filename)
        yield [Member(info.filename, lambda info=info: archive.open(info)) for info in infos if not info.is_dir()]


def by_base_name(members: list[Member]) -> dict[str, Member]:
    """Indexes members by file name, whatever folder the archive puts them in.

    Raises:
        FetchError: two have the same name, so that either could be meant.
    """
    found: dict[str, Member] = {}
    for member in members:
        name = member.name.rsplit("/", 1)[-1]
        if name in found:
            raise FetchError(f"archive refused: {name!r} is in it twice")
        found[name] = member
    return found


# --- files on disk -----------------------------------------------------------


def fault(item: Item, size: int, digest: str) -> str | None:
    """Returns how size and hash differ from the table, if they do."""
    if size != item.size:
        return f"has {size} bytes instead of {item.size}"
    if item.sha256 is not None and digest != item.sha256:
        return f"has SHA-256 {digest} instead of {item.sha256}"
    return None


def is_right(path: Path, item: Item) -> bool:
    """Returns whether the right file already exists."""
    if not path.is_file() or path.stat().st_size != item.size:
        return False
    if item.sha256 is None:
        return True
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == item.sha256


def extract(member: Member, item: Item, scratch: Path, target: Path) -> None:
    """Writes one verified file.

    Raises:
        FetchError: the member is not the file wanted; the target is untouched.
    """
    part = scratch / "part"
    with member.open() as source, part.open("wb") as file:
        size, digest = copy(source, file, item.size)
    problem = fault(item, size, digest)
    if problem:
        raise FetchError(problem)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target)


# --- the whole run -----------------------------------------------------------


def say(name: str, item: Item, verdict: str) -> None:
    print(f"{name + '/' + item.name:<28} {item.size:>11,}  {verdict}", flush=True)


def note(item: Item, text: str) -> str:
    return text if item.sha256 is not None else f"{text} (size only)"


class Task(NamedTuple):
    """An archive to fetch, its largest allowed size, and where its files go."""

    name: str
    url: str
    limit: int
    folder: Path


def task_for(name: str, entry: Corpus, folder: Path, base_url: str | None) -> Task:
    limit = sum(item.size for item in entry.items) + SLACK
    return Task(name, address(entry, base_url), limit, folder / name)


def fetch_set(task: Task, items: Sequence[Item]) -> bool:
    """Fetches items of a set; returns whether all of them are right."""
    missing = []
    for item in items:
        if is_right(task.folder / item.name, item):
            say(task.name, item, note(item, "already there"))
        else:
            missing.append(item)
    if not missing:
        return True
    # Next to the target folder, so that the last step is a rename and not a copy.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=task.folder.parent) as scratch:
        try:
            return fetch_missing(task, missing, Path(scratch))
        except FetchError as error:
            for item in missing:
                say(task.name, item, f"FAILED: {error}")
            return False


def fetch_missing(task: Task, missing: Sequence[Item], scratch: Path) -> bool:
    packed = scratch / "archive"
    download(task.url, packed, task.limit)
    opener = zip_members if task.url.endswith(".zip") else tar_members
    with archive_errors(), opener(packed, task.limit) as members:
        found = by_base_name(members)
        results = [fetch_item(task, item, found, scratch) for item in missing]
    return all(results)


def fetch_item(task: Task, item: Item, found: Mapping[str, Member], scratch: Path) -> bool:
    """Extracts and reports a file; a bad file does not stop the others."""
    try:
        if item.name not in found:
            raise FetchError("not in the archive")
        with archive_errors():
            extract(found[item.name], item, scratch, task.folder / item.name)
    except FetchError as error:
        say(task.name, item, f"FAILED: {error}")
        return False
    say(task.name, item, note(item, "ok"))
    return True


def select(table: Mapping[str, Corpus], only: Sequence[str] | None) -> dict[str, list[Item]]:
    """Returns the selected items of each set; all of them if none are named.

    Raises:
        FetchError: a name is neither a set nor a file of one.
    """
    wanted = {name: list(entry.items) for name, entry in table.items()}
    if not only:
        return wanted
    known = {f"{name}/{item.name}" for name in wanted for item in wanted[name]}
    for name in only:
        if name not in wanted and name not in known:
            raise FetchError(f"unknown name {name!r}; --list shows what there is")
    chosen = {name: [i for i in items if name in only or f"{name}/{i.name}" in only] for name, items in wanted.items()}
    return {name: items for name, items in chosen.items() if items}


def list_table(table: Mapping[str, Corpus]) -> None:
    for name, entry in table.items():
        print(f"{name}: {entry.url}")
        for item in entry.items:
            say(name, item, item.sha256 or "size only")


def main(arguments: Sequence[str] | None = None, table: Mapping[str, Corpus] = TABLE) -> int:
    """Runs the command line; tests pass another table."""
    parser = argparse.ArgumentParser(description="Download and verify public benchmark corpora.")
    parser.add_argument("folder", metavar="DIR", type=Path, nargs="?")
    parser.add_argument(
        "--only",
        metavar="NAME",
        nargs="+",
        action="extend",
        help="a set, or a file as set/file",
    )
    parser.add_argument("--base-url", metavar="URL", help="a mirror of all archives")
    parser.add_argument("--list", action="store_true", help="print the table and stop")
    options = parser.parse_args(arguments)
    if options.list:
        list_table(table)
        return 0
    if options.folder is None:
        parser.error("DIR is needed")
    try:
        wanted = select(table, options.only)
    except FetchError as error:
        parser.error(str(error))
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(str(error))
    results = [
        fetch_set(task_for(name, table[name], options.folder, options.base_url), items)
        for name, items in wanted.items()
    ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
