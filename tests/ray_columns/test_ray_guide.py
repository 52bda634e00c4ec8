"""Runs docs/ray.md: its Python on a local Ray, block after block as one program, and its section on datatrove."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llmzip

GUIDE = Path(llmzip.__file__).resolve().parents[1] / "docs" / "ray.md"
if not GUIDE.is_file():
    pytest.skip("the documents are not installed", allow_module_level=True)
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def program(begin: str, end: str) -> str:
    """The Python of some sections."""
    text = GUIDE.read_text(encoding="utf-8")
    return "\n".join(re.findall(r"```python\n(.*?)```", text[text.index(begin) : text.index(end)], re.DOTALL))


@pytest.mark.usefixtures("local_ray")
def test_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    # Folders with their full names: the workers are elsewhere.
    code = re.sub(
        r'"(chat\.parquet|archives|bits)"', lambda name: repr(str(tmp_path / name[1])), program("## From", "## Choices")
    )
    names: dict[str, object] = {}
    exec(compile(code, str(GUIDE), "exec"), names)
    assert re.search(r"^\d\.\d{3} bits per byte$", capsys.readouterr().out, re.MULTILINE)
    frame = names["frame"]
    assert llmzip.decompress(frame["text_llmz"][0]) == b"any text" and frame["text_llmz"][1] is None  # type: ignore[index]


def test_datatrove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("datatrove", reason="datatrove is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(program("## datatrove", "On Slurm only"), str(GUIDE), "exec"), {})
    assert capsys.readouterr().out == "The ferry was late again.\nTwo tickets, please.\n"
    assert llmzip.info(tmp_path / "corpus" / "00000.jsonl.llmz").original_bytes > 50
