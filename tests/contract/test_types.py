"""Typical code that passes mypy --strict with lzma passes with llmzip as well."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import llmzip

# Written for the module MODULE, whose file class is FILE.
CODE = """
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import MODULE


def load(path: Path) -> bytes:
    with MODULE.open(path) as file:
        return file.read()


def load_text(path: str) -> str:
    with MODULE.open(path, "rt", encoding="utf-8") as file:
        return file.read()


def lines(path: Path) -> Iterator[str]:
    with MODULE.open(path, "rt", newline="") as file:
        yield from file


def raw_lines(path: Path) -> Iterator[bytes]:
    with MODULE.open(path, "rb") as file:
        for line in file:
            yield line.rstrip()


def save(path: Path, rows: list[dict[str, int]]) -> None:
    with MODULE.open(path, "wt", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\\n")
        print("done", file=file)


def append(path: Path, data: bytes) -> int:
    with MODULE.open(path, mode="ab") as file:
        return file.write(data)


def in_memory(data: bytes) -> bytes:
    with MODULE.open(io.BytesIO(MODULE.compress(data))) as file:
        head: bytes = file.peek(1)[:1]
        file.seek(0)
        return head + file.readline() + b"".join(file.readlines())


def to_any_file(sink: IO[bytes], data: bytes) -> None:
    with MODULE.FILE(sink, "wb") as file:
        file.write(data)


def once(data: bytes | bytearray) -> bytes:
    return MODULE.decompress(MODULE.compress(data))


def chosen(path: Path, text: bool) -> str:
    with MODULE.open(path, "rt" if text else "rb") as file:
        return repr(file.read())
"""


# `make check` checks the package itself; here its public types count, and what lies below them would take a minute.
CONFIGURATION = """
[mypy]
follow_imports = silent
[mypy-torch.*,numpy.*,transformers.*,llmzip.engines.*,llmzip.mixing.*,llmzip.inference.*,llmzip.codec.rows,llmzip.codec.drafts]
follow_imports = skip
"""


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
@pytest.mark.parametrize(("module", "file"), [("lzma", "LZMAFile"), ("llmzip", "LLMZipFile")])
def test_user_code_is_typed(tmp_path: Path, module: str, file: str) -> None:
    (tmp_path / "user.py").write_text(CODE.replace("MODULE", module).replace("FILE", file))
    (tmp_path / "mypy.ini").write_text(CONFIGURATION)
    root = Path(llmzip.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "user.py"],
        cwd=tmp_path, env={**os.environ, "MYPYPATH": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("Success: "), done.stdout + done.stderr
