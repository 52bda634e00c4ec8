"""One local Ray for all tests of this folder: it needs some seconds to start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmzip

ROOT = Path(llmzip.__file__).resolve().parents[1]


@pytest.fixture(scope="package")
def local_ray() -> Iterator[None]:
    """Starts Ray with two CPUs; its workers find the llmzip that is tested."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else a busy machine starves the workers
        ray.init(
            "local",
            num_cpus=2,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=100 * 1024 * 1024,
            log_to_driver=False,
            logging_level="error",
            _node_ip_address="127.0.0.1",
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()
