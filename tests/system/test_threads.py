"""Checks the number of threads: as torch would choose it, as it was set, and torch's own wherever torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import llmzip


def output_of(code: str, **variables: str) -> str:
    """What a new process prints that has imported `threads` and `sys`."""
    fixed = {"PYTHONPATH": str(Path(llmzip.__file__).parents[1])}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    program = f"import os, sys\nfrom llmzip.system import threads\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=kept | fixed | variables, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("variables", [{}, {"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "1"}])
def test_it_is_what_torch_chooses(variables: dict[str, str]) -> None:
    code = (
        "own = threads.count(); has = 'torch' in sys.modules\nimport torch\nprint(has, own == torch.get_num_threads())"
    )
    assert output_of(code, **variables) == "False True"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_processors_that_a_process_may_not_use_do_not_count() -> None:
    assert output_of("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(threads.count())") == "1"


@pytest.mark.parametrize("value", ["", "0", "-2", "many"])
def test_a_number_that_is_none_is_passed_over(value: str) -> None:
    assert output_of("print(threads.count())", OMP_NUM_THREADS=value) == output_of("print(threads.count())")


def test_torch_gets_what_was_set_before_it() -> None:
    code = (
        "threads.set_count(3); print(threads.count())\nimport torch\nthreads.settle(); print(torch.get_num_threads())"
    )
    assert output_of(code).split() == ["3", "3"]


def test_what_a_program_sets_in_torch_holds() -> None:
    code = "threads.set_count(3)\nimport torch\nthreads.settle(); torch.set_num_threads(5); print(threads.count())"
    assert output_of(code) == "5"
    code = "import torch\nthreads.set_count(3); print(torch.get_num_threads(), threads.count())"
    assert output_of(code) == "3 3"


def test_0_stands_for_all_processors() -> None:
    assert output_of("threads.set_count(0); print(threads.count() == os.cpu_count())") == "True"


def test_a_containers_share_limits_it(tmp_path: Path) -> None:
    code = (
        "threads._cores = lambda: 16\n"
        "for quota in (None, 0.5, 2.0, 2.5, 64.0):\n"
        "    threads._quota = lambda: quota\n"
        "    threads.usual_count.cache_clear(); print(threads.count())"
    )
    assert output_of(code).split() == ["16", "1", "2", "3", "16"]
