"""Real pretrained models through the whole program: every way of using one gives the text back."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from real_samples import RealModel, corpus

import llmzip

PROSE = corpus("prose-en.txt", 2_000, 3_000)
CODE = corpus("code-python.txt", 2_000)
ODD = bytes(range(256)) + PROSE[:600] + bytes([0x04, 0xC0, 0xFF]) * 20
"""Every byte, some of which SmolLM2 has no token for."""


def _code_bytes(archive: bytes) -> int:
    """The size of the frames: the headers of such short archives would hide what the model does."""
    return sum(frame.compressed_bytes for frame in llmzip.info(archive).archives[0].frames)


def run(*arguments: str | Path, stdin: bytes | None = None, status: int = 0) -> subprocess.CompletedProcess[bytes]:
    """Runs llmzip in a process of its own."""
    command = [sys.executable, "-m", "llmzip", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=900)
    assert done.returncode == status, done.stderr.decode()
    return done


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.parametrize("text", [PROSE, CODE, ODD], ids=["prose", "code", "odd"])
def test_texts_come_back(model: RealModel, level: int, text: bytes) -> None:
    archive = llmzip.compress(text, model=str(model), level=level)
    assert llmzip.decompress(archive, model=str(model)) == text
    if text is not ODD:
        methods = {frame.method for frame in llmzip.info(archive).archives[0].frames}
        assert methods == {"lm" if level == 1 else "mixed"}
        assert len(archive) < 0.35 * len(text)


def test_smaller_than_the_embedded_model(model: RealModel) -> None:
    for text in (PROSE, CODE):
        assert _code_bytes(llmzip.compress(text, model=str(model))) < 0.9 * _code_bytes(llmzip.compress(text))


def test_command_line(model: RealModel, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(PROSE[:1000])
    verbose = run("-v", "-v", "-m", model, text)
    assert b"slower than it could be" not in verbose.stderr
    archive = tmp_path / "text.txt.llmz"
    assert run("-dc", "-m", model, archive).stdout == PROSE[:1000]
    message = run("-dc", archive, status=3).stderr
    assert message.count(b"\n") == 1 and b"needs model" in message
    assert run("-t", "-m", model, archive).returncode == 0


def test_models_info(model: RealModel) -> None:
    (line,) = run("models", "info", "--json", model).stdout.splitlines()
    about = json.loads(line)
    assert about["runs"] is True
    assert about["model_type"] == {"smollm2": "llama", "gemma3": "gemma3_text"}[model.name]


def test_prompt(model: RealModel, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt"
    prompt.write_bytes(PROSE[:900])
    text = PROSE[900:1500]
    alone = run("-c", "-m", model, stdin=text).stdout
    archive = run("-c", "-m", model, "--prompt-file", prompt, stdin=text).stdout
    assert _code_bytes(archive) < _code_bytes(alone)
    assert run("-dc", "-m", model, "--prompt-file", prompt, stdin=archive).stdout == text
    run("-dc", "-m", model, stdin=archive, status=3)


def test_range(model: RealModel, tmp_path: Path) -> None:
    archive = tmp_path / "a.llmz"
    archive.write_bytes(run("-c", "-m", model, "--window-bits", "512", stdin=PROSE).stdout)
    assert run("cat", "-m", model, "--range", "700:800", archive).stdout == PROSE[700:800]


@pytest.mark.parametrize("reset", [True, False])
def test_windows(model: RealModel, reset: bool) -> None:
    options = [] if reset else ["--no-model-reset"]
    for text in (PROSE[:800], ODD[:700]):
        archive = run("-c", "-m", model, "--window-bits", "256", *options, stdin=text).stdout
        assert run("-dc", "-m", model, stdin=archive).stdout == text


def test_packets(model: RealModel, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(PROSE[:1200])
    folder = tmp_path / "packets"
    run("packets", "-m", model, "--packet-bytes", "140", text, "-o", folder)
    packets = sorted(folder.iterdir())
    assert len(packets) > 1
    random.Random(5).shuffle(packets)
    assert run("packets", "-d", "-m", model, *packets).stdout == text.read_bytes()
    lost = run("packets", "-d", "-m", model, *packets[1:], status=4)
    assert 0 < len(lost.stdout) < 1200


def test_entropy(model: RealModel, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(PROSE)
    (line,) = run("entropy", "--json", "-m", model, text).stdout.splitlines()
    archive = run("-1", "-c", "-m", model, "--rows", "1", stdin=PROSE).stdout
    more = 8 * _code_bytes(archive) - json.loads(line)["total_bits"]
    assert 0 <= more < 8 * 20  # a frame has 15 bytes besides its payload


def test_estimate(model: RealModel, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(corpus("prose-en.txt", 20_000) + corpus("technical-en.txt", 6_000))
    assert run("estimate", "-m", model, text).returncode == 0


def test_train_from(tmp_path: Path, model: RealModel) -> None:
    if model.name != "smollm2":
        pytest.skip("a step of Gemma's 262,144 tokens takes too long here")
    text = tmp_path / "text"
    text.write_bytes(corpus("prose-en.txt", 22_000) + corpus("technical-en.txt", 6_000))
    done = run("train", text, "-o", tmp_path / "tuned", "--from", model, "--time", "45s", "-T", str(os.cpu_count()))
    assert b"step" in done.stderr
    archive = run("-c", "-m", tmp_path / "tuned", stdin=PROSE[:600]).stdout
    assert run("-dc", "-m", tmp_path / "tuned", stdin=archive).stdout == PROSE[:600]
