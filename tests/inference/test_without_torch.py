"""Checks that the compiled kernels work without torch, whose import takes longer than a short text does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import llmzip
from llmzip.engines.cpu import kernels
from llmzip.system import libraries

TEXT = Path(__file__).parents[2] / "corpora" / "prose-en.txt"

pytestmark = pytest.mark.skipif(kernels.chosen()[0] is None, reason="there are no compiled kernels here")


def has_torch_after(code: str, tmp_path: Path, **variables: str) -> bool:
    """Whether a new process has imported torch after some code, which finds a text of 2,000 bytes in `text`."""
    program = (
        f"import sys\nfrom pathlib import Path\ntext = Path({str(TEXT)!r}).read_bytes()[:2000]\n{code}\n"
        "print('torch' in sys.modules)"
    )
    package = os.pathsep.join(filter(None, [str(Path(llmzip.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    fixed = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": package}
    environment = os.environ | fixed | variables
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1] == "True"


def round_trip(*, model: str, level: int) -> str:
    return (
        "import llmzip\n"
        f"archive = llmzip.compress(text, model={model!r}, level={level})\n"
        "assert {frame.method for frame in llmzip.info(archive).archives[0].frames} <= {'lm', 'mixed'}\n"
        "assert llmzip.decompress(archive) == text\n"
    )


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.parametrize("model", ["base", "small", "bytes"])
def test_round_trips(model: str, level: int, tmp_path: Path) -> None:
    """The first process also runs the self-test: its folder is new."""
    assert not has_torch_after(round_trip(model=model, level=level), tmp_path)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_round_trips_with_a_number_of_threads(threads: str, tmp_path: Path) -> None:
    code = (
        "Path('t.txt').write_bytes(text)\n"
        "from llmzip.cli.main import main\n"
        f"assert not main(['-1', '-T', '{threads}', 't.txt'])\n"
        f"assert not main(['-d', '-f', '-T', '{threads}', 't.txt.llmz'])\n"
        "from llmzip.system import threads\n"
        f"assert threads.count() == {threads} and Path('t.txt').read_bytes() == text\n"
    )
    assert not has_torch_after(code, tmp_path)


def test_an_int8_model_in_a_folder(tmp_path: Path) -> None:
    from llmzip.models.embedded import embedded_by_name

    small = embedded_by_name("small")
    assert small is not None
    code = (
        "import llmzip\n"
        f"archive = llmzip.compress(text, model={str(small.folder)!r}, level=1)\n"
        f"assert llmzip.decompress(archive, model={str(small.folder)!r}) == text\n"
    )
    assert not has_torch_after(code, tmp_path)


COMMANDS = {
    "a file": ["t.txt -o t.llmz", "-d t.llmz -o back.txt"],
    "windows": ["--window-bits 64 t.txt -o t.llmz", "-d t.llmz -o back.txt", "windows --show t.txt"],
    "windows that keep their context": ["--window-bits 64 --no-model-reset t.txt -o t.llmz", "-d t.llmz -o back.txt"],
    "packets": ["packets t.txt -o packets", "packets -d packets"],
    "entropy": ["entropy t.txt"],
    "estimate": ["estimate t.txt"],
    "distance": ["distance t.txt t.txt"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str, tmp_path: Path) -> None:
    code = (
        "Path('t.txt').write_bytes(text)\n"
        "from llmzip.cli.main import main\n"
        f"assert not any(main(line.split()) for line in {COMMANDS[name]!r})\n"
    )
    assert not has_torch_after(code, tmp_path)


def test_archives_are_those_of_torch(tmp_path: Path) -> None:
    """And plain torch is imported where there are no kernels."""
    code = "import llmzip\nPath(sys.argv[0] + 'archive').write_bytes(llmzip.compress(text, level=6))\n"
    (tmp_path / "kernels").mkdir()
    (tmp_path / "torch").mkdir()
    assert not has_torch_after(code, tmp_path / "kernels")
    assert has_torch_after(code, tmp_path / "torch", **{libraries.VARIABLE: libraries.NONE})
    archives = {(tmp_path / name / "-carchive").read_bytes() for name in ("kernels", "torch")}
    assert len(archives) == 1
