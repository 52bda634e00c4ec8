"""The reference pages are complete: keys of JSON, variables, exit statuses, public names."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import llmzip
from llmzip import errors
from llmzip.cli.main import main
from llmzip.models.embedded import EMBEDDED

ROOT = Path(llmzip.__file__).resolve().parents[1]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documents are not installed")


def page(name: str) -> str:
    """The text of a page."""
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What is below a heading of the second level, up to the next one."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two short texts and an archive of each kind in the current folder, and small as the model to compress with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMZIP_MODEL", "small")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    shutil.copytree(EMBEDDED[1].folder, "copy")
    text = (ROOT / "corpora" / "prose-en.txt").read_bytes()
    Path("a.txt").write_bytes(text[:1500])
    Path("b.txt").write_bytes(text[1500:3000])
    assert main(["-q", "a.txt"]) == 0


COMMANDS = {
    "Archives": [
        "-l --json a.txt.llmz",
        "-t --json a.txt.llmz",
        "-f -o b.llmz --report - b.txt",
        "-df --report - a.txt.llmz",
    ],
    "`llmzip entropy`": ["entropy -m small --json --piece-bytes 512 a.txt", "entropy -m small --json --spans a.txt"],
    "`llmzip estimate`": ["estimate --json a.txt"],
    "`llmzip distance`": ["distance --json a.txt b.txt"],
    "`llmzip windows`": [
        "windows --json -m small --window-bits 64 a.txt",
        "windows --json --show -m small --window-bits 64 a.txt",
    ],
    "`llmzip models`": [
        "models list --json",
        "models info --json --digests small",
        "models verify --json small",
        "models add --json copy",
        "models remove --json copy",
    ],
    "`llmzip bench`": ["bench --json --peers gzip --no-llmzip a.txt"],
}


@pytest.mark.parametrize("heading", COMMANDS)
def test_every_key_of_json_is_documented(heading: str, texts: None, capfd: pytest.CaptureFixture[str]) -> None:
    text = page("json.md")
    below = section(text, heading)
    words = set(re.findall(r"`([a-z][a-z_0-9]*|_[a-z_]+)`", below + section(text, "Every record")))
    suffixes = [word for word in words if word.startswith("_")]
    seen: set[str] = set()
    for command in COMMANDS[heading]:
        capfd.readouterr()
        assert main(command.split()) == 0, command
        output = capfd.readouterr()
        records = [json.loads(line) for line in (output.out + output.err).splitlines() if line.startswith("{")]
        assert records, command
        for record in records:
            seen |= set(record) | {key for entry in record.get("archives", []) for key in entry}
            seen |= {key for entry in record.get("archives", []) for frame in entry["frames"] for key in frame}
    known = words | {word + suffix for word in words for suffix in suffixes}
    assert sorted(seen - known - {"record", "kind"}) == []
    if heading == "Archives":
        seen |= {"passed_through"}  # of what is not an archive
    for row in re.findall(r"^\| (`.*?) \|", below, re.MULTILINE):
        for key in re.findall(r"`([a-z][a-z_0-9]*|_[a-z_]+)`", row):
            assert key in seen, key


def test_every_variable_is_documented() -> None:
    read = re.compile(
        r"(?:environ(?:\.get|\.setdefault)?[(\[]|envvar=|environ\) and |_CACHE_VARIABLE = |VARIABLE = |PLATFORM = )"
        r'\s*"([A-Z_]+)"'
    )
    used = {
        name
        for file in [*(ROOT / "llmzip").rglob("*.py"), ROOT / "tools" / "build_backend.py"]
        for name in read.findall(file.read_text(encoding="utf-8"))
        if name != "PYTHONPATH"
    }
    assert {"LLMZIP_MODEL", "LLMZIP_KERNELS", "XDG_CACHE_HOME", "NO_COLOR", "GOMP_SPINCOUNT"} <= used
    documented = set(re.findall(r"`([A-Z_]{4,})`", page("environment.md")))
    assert used <= documented
    for name in documented - used:  # those of libraries, which are named all the same
        assert name.startswith(
            ("HF_", "TRANSFORMERS_", "OMP_", "OPENBLAS_", "MKL_", "RAYON_", "RAY_", "AWS_", "_LLMZIP_", "TMPDIR")
        ), name


def test_every_exit_status_is_documented() -> None:
    text = page("exit-statuses.md")
    statuses = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(status) for status in re.findall(r"^\| (\d) \|", text, re.MULTILINE)} == statuses
    written = {
        name: int(status)
        for names, status in re.findall(r"^\| (`\w+Error.*?) \| (\d) \|$", text, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    classes = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LLMZipError)
    }
    assert written == {kind.__name__: kind.exit_code for kind in classes}


def test_every_public_name_is_in_the_python_reference() -> None:
    names = re.findall(r"^::: llmzip\.(\w+)$", page("python.md"), re.MULTILINE)
    assert sorted(names) == sorted(set(llmzip.__all__) - {"__version__"})
