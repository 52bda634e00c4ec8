"""Checks that children of os.fork() can use llmzip: after use in the parent, and while a thread there is at work."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmzip.engines.cpu import kernels

PROGRAM = Path(__file__).parent / "forked.py"
VOCABULARY = 320

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
has_kernels = pytest.mark.skipif(kernels.library("") is None, reason="the kernels were not built")
has_transformers = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="no transformers")

WORK = [
    pytest.param("embedded", {}, id="kernels", marks=has_kernels),
    pytest.param("checkpoint", {"LLMZIP_KERNELS": "none"}, id="torch"),
    pytest.param("in_float", {}, id="float", marks=has_transformers),
]


@pytest.fixture(scope="module")
def folder(
    make_tokenizer: Callable[..., Path],
    random_checkpoint: Callable[..., Any],
    write_checkpoint: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A tiny checkpoint that finds all tokens about equally likely."""
    config, tensors = random_checkpoint(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, head_dim=32)
    config["tie_word_embeddings"] = False
    tensors["lm_head.weight"] *= 0.02
    return write_checkpoint(make_tokenizer(tmp_path_factory.mktemp("fork") / "model", VOCABULARY), config, tensors)


@pytest.fixture
def run(folder: Path) -> Callable[..., None]:
    """Runs a scenario of forked.py, which must succeed and say nothing of trouble."""

    def run(scenario: str, work: str, variables: dict[str, str]) -> None:
        # As a user has it: without this tokenizers would not use threads at all.
        kept = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
        done = subprocess.run(
            [sys.executable, PROGRAM, scenario, work, folder],
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
            env=kept | variables | {"OMP_NUM_THREADS": "2"},
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")

    return run


@pytest.mark.parametrize(("work", "variables"), WORK)
@pytest.mark.parametrize("scenario", ["after_use", "in_the_middle"])
def test_children_can_do_what_the_parent_did(
    run: Callable[..., None], scenario: str, work: str, variables: dict[str, str]
) -> None:
    run(scenario, work, variables)


@pytest.mark.parametrize(("work", "variables"), WORK[:2])
def test_servers_may_load_before_they_fork(run: Callable[..., None], work: str, variables: dict[str, str]) -> None:
    run("servers", work, variables)


@has_kernels
def test_forks_during_the_first_use(run: Callable[..., None]) -> None:
    """Not without kernels: torch's own first steps have hung a child there, once in some ten runs."""
    run("at_the_first_use", "embedded", {})


@pytest.mark.parametrize(("work", "variables"), WORK[::2])
@pytest.mark.parametrize("scenario", ["keeping_settings", "without_dismissal"])
def test_settings_of_torch_hold_in_children(
    run: Callable[..., None], scenario: str, work: str, variables: dict[str, str]
) -> None:
    run(scenario, work, variables)
