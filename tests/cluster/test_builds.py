"""Whether machines would give the same bytes, and whether there is room for workers on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from test_worker import make_job

from llmzip.cluster import fleet
from llmzip.cluster.fleet import Build, Resources
from llmzip.cluster.job import Operation
from llmzip.errors import EngineError, ModelError

HERE = Build("1.0", 1, 1, "files", "libraries", "model", "this")


class FakeRay:
    """Tells what a cluster has."""

    def __init__(self, **resources: float) -> None:
        self._resources = resources

    def cluster_resources(self) -> dict[str, float]:
        return self._resources


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("version", "1.1", "has llmzip 1.1, this machine 1.0"),
        ("format", 2, "has other files of llmzip 1.0"),
        ("numerics", 2, "has other files of llmzip 1.0"),
        ("source", "other", "has other files of llmzip 1.0"),
        ("libraries", "other", "other versions of LZMA, Zstandard or tokenizers"),
        ("model", "other", "another model of that name"),
    ],
)
def test_whatever_changes_bytes_is_refused_by_name(field: str, value: Any, reason: str) -> None:
    difference = HERE.difference(dataclasses.replace(HERE, **{field: value}))
    assert difference is not None and reason in difference


def test_the_name_of_the_machine_changes_nothing() -> None:
    assert HERE.difference(dataclasses.replace(HERE, node="other")) is None


def test_a_worker_refuses_a_machine_unlike_the_drivers(tmp_path: Path) -> None:
    job = make_job(tmp_path, tmp_path)
    here = fleet.build_here(job)
    fleet.check_build(here, job)
    with pytest.raises(EngineError, match=r"has llmzip .*, this machine 9"):
        fleet.check_build(dataclasses.replace(here, version="9"), job)


def test_a_model_is_known_by_what_its_archives_begin_with(tmp_path: Path) -> None:
    models = [fleet.model_identity(make_job(tmp_path, tmp_path, model=name)) for name in ("base", "small", "base")]
    assert models[0] == models[2] != models[1]
    assert fleet.model_identity(make_job(tmp_path, tmp_path, Operation.DECOMPRESS)) == ""
    with pytest.raises(ModelError):
        fleet.model_identity(make_job(tmp_path, tmp_path, model=str(tmp_path / "missing")))


@pytest.mark.parametrize(
    ("has", "wants", "room"),
    [
        ({"CPU": 7}, Resources(2), 3),
        ({"CPU": 8, "GPU": 3}, Resources(1, 1), 3),
        ({"CPU": 1, "GPU": 4}, Resources(1, 0.25), 1),
    ],
)
def test_room_is_counted_by_what_is_scarce(has: dict[str, float], wants: Resources, room: int) -> None:
    assert fleet.worker_room(FakeRay(**has), wants) == room


def test_a_worker_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(EngineError, match="1 CPUs and 1 GPUs fits on no node: the cluster has 8 CPUs and 0 GPUs"):
        fleet.worker_room(FakeRay(CPU=8), Resources(1, 1))
