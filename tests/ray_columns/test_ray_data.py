"""Functions of a column in Ray Data: real actors on a local Ray."""

from __future__ import annotations

from typing import Any

import pytest

import llmzip
from llmzip.ray import Compress, Decompress, Measure
from llmzip.ray.resources import assigned_resources, engine_settings
from llmzip.settings import EngineSettings

pytest.importorskip("ray", reason="ray is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("local_ray"),
]

TEXTS = [f"Line {number}: the ferry was late again.\n" * (1 + number % 3) for number in range(11)] + [None]


def test_a_worker_computes_with_what_ray_assigned() -> None:
    import ray

    def settings_of_worker(threads: int | None) -> tuple[Any, EngineSettings]:
        return assigned_resources(), engine_settings("auto", threads)

    remote = ray.remote(settings_of_worker)
    assigned, settings = ray.get(remote.options(num_cpus=2).remote(None))
    assert assigned == {"CPU": 2.0}
    assert settings == EngineSettings(device="cpu", threads=2)  # no GPU was asked for, so none is looked for
    one, own = ray.get([remote.options(num_cpus=0.5).remote(None), remote.remote(3)])
    assert one[1].threads == 1 and own[1].threads == 3
    assert settings_of_worker(None) == (None, EngineSettings())  # the driver is no worker


def test_a_dataset_through_actors() -> None:
    import ray
    from ray.data import ActorPoolStrategy

    def options(num_cpus: float, batch_format: str) -> dict[str, Any]:
        compute = ActorPoolStrategy(size=1)
        return {"compute": compute, "num_cpus": num_cpus, "batch_size": 5, "batch_format": batch_format}

    cells = [{"id": number, "text": text, "data": b"\0 zeros at both ends \0\0"} for number, text in enumerate(TEXTS)]
    dataset = (
        ray.data.from_items(cells, override_num_blocks=3)
        .map_batches(Compress, fn_constructor_kwargs={"column": "text", "model": "small"}, **options(0.5, "numpy"))
        .map_batches(Measure, fn_constructor_kwargs={"column": "text", "model": "small"}, **options(0.5, "pandas"))
        .map_batches(
            Decompress,
            fn_constructor_kwargs={"column": "text_llmz", "output": "again", "as_text": True, "errors": "record"},
            **options(0.5, "pyarrow"),
        )
        .materialize()
    )
    rows = sorted(dataset.take_all(), key=lambda row: row["id"])
    assert [row["again"] for row in rows] == [row["text"] for row in rows] == TEXTS
    assert [row["text_llmz"] for row in rows[:-1]] == [llmzip.compress(t.encode(), model="small") for t in TEXTS if t]
    assert rows[-1]["text_llmz"] is None and {row["text_llmz_error"] for row in rows} == {None}
    assert {row["data"] for row in rows} == {b"\0 zeros at both ends \0\0"}
    assert dataset.sum("text_bytes") == sum(len(text) for text in TEXTS if text)
    assert dataset.sum("text_bits") == sum(row["text_bits"] for row in rows[:-1]) > 100
    names = {field.name: str(field.type) for field in dataset.schema().base_schema}
    assert names["text_llmz"] == "binary" and names["again"] == "string" and names["text_bits"] == "int64"


def test_a_bad_cell_ends_the_job_and_names_its_row() -> None:
    import ray
    from ray.data import ActorPoolStrategy

    archives = [llmzip.compress(b"good", model="small"), b"not an archive"]
    dataset = ray.data.from_items([{"archive": archive} for archive in archives], override_num_blocks=1).map_batches(
        Decompress,
        fn_constructor_kwargs={"column": "archive", "output": "text"},
        compute=ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    with pytest.raises(Exception, match=r"column 'archive', row 1 of the batch: not an llmzip archive"):
        dataset.materialize()
