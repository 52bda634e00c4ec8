"""Functions of a column in Ray Data: real actors on a local Ray."""

from __future__ import annotations

from typing import Any

import pytest

import llmzip
from llmzip.ray import Decompress, batches
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

TEXTS = [f"Line {number}: the ferry was late again.\n" * (1 + number % 3) for number in range(10)] + [None, None]


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


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_new_columns_pass_through_ray_in_every_form(batch_format: str) -> None:
    import ray

    def extended(batch: Any) -> Any:
        texts = batches.cells(batch, "text")
        data = [None if text is None else b"\0" + text.encode() + b"\0\0" for text in texts]
        sizes = [None if text is None else len(text) for text in texts]
        return batches.with_columns(batch, {"data": (bytes, data), "again": (str, texts), "size": (int, sizes)})

    items = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    dataset = ray.data.from_items(items, override_num_blocks=1)
    # In batches of two the last one has nothing but missing cells.
    dataset = dataset.map_batches(extended, batch_size=2, batch_format=batch_format).materialize()
    rows = sorted(dataset.take_all(), key=lambda row: row["id"])
    assert [row["again"] for row in rows] == [row["text"] for row in rows] == TEXTS
    assert [row["data"] for row in rows[:-2]] == [b"\0" + text.encode() + b"\0\0" for text in TEXTS if text]
    assert [row["size"] for row in rows[:-2]] == [len(text) for text in TEXTS if text]
    assert rows[-1]["data"] is None and rows[-1]["size"] is None
    types = {field.name: str(field.type) for field in dataset.schema().base_schema}
    assert types == {"id": "int64", "text": "string", "data": "binary", "again": "string", "size": "int64"}


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
