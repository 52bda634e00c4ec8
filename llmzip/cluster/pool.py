"""Workers on Ray Data: tasks go to a pool of actors, each with its model loaded, and results come as they are done.

What dies is Ray's to mend: it gives the task of a dead worker or node to another one. What goes wrong with a file never
becomes an exception here, because Ray does not retry exceptions; it becomes a row (worker.py).
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import EngineError, LLMZipError
from ..system.failures import explain
from .fleet import Build, Resources, check_build, last_line
from .rows import Row, shown_path
from .tasks import TaskList
from .worker import TaskResult, Worker

if TYPE_CHECKING:
    from .job import Job

_NUMBERS_AT_ONCE, _NUMBER_BYTES = 1024, 8
"""Numbers of tasks that Ray makes at once, before they are dealt out one by one; size of one."""


class TaskRunner:
    """The actor's class: does tasks by their numbers.

    Args:
        job: what is done.
        tasks: the tasks of the run.
        build: what the driver has, which this machine must have too.
    """

    def __init__(self, job: Job, tasks: TaskList, build: Build) -> None:
        check_build(build, job)
        self._tasks, self._dest = tasks, shown_path(job.dest.uri_of(""))
        self._worker = Worker(job, tasks.run)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Does the tasks of a batch.

        Args:
            batch: the column `id`, numbers of tasks.

        Returns:
            a column `result` of JSON texts, one for each task: its result, or in a line why the run cannot go on.
        """
        return {"result": [self._done(int(number)) for number in batch["id"]]}

    def _done(self, number: int) -> str:
        try:
            result = self._worker.run(self._tasks.read(number))
        except Exception as error:  # the destination's; as an exception, Ray would bury it in pages of its own
            reason = explain(error, "")[1]
            if isinstance(error, OSError) and error.filename is None:
                reason = f"{self._dest}: {reason}"
            return json.dumps({"stopped": " ".join(reason.split())})
        facts = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
        return json.dumps(facts | {"rows": [row.to_json() for row in result.rows]})


def run_tasks(
    ray: Any, job: Job, tasks: TaskList, numbers: Sequence[int], resources: Resources, build: Build
) -> Iterator[TaskResult]:
    """Does tasks on the cluster; yields each one's result as it is done, in no order.

    Args:
        ray: the module, connected.
        job: what is done.
        tasks: the tasks of the run.
        numbers: which of them to do; a range costs no memory.
        resources: what each worker gets, and how many there are.
        build: what every machine must have.

    Raises:
        EngineError: a node that came later would not give the same bytes.
        LLMZipError: the destination cannot be written, or Ray gave up.
    """
    try:
        for text in results_of(ray, TaskRunner, (job, tasks, build), numbers, resources):
            facts = json.loads(text)
            if "stopped" in facts:
                raise LLMZipError(_stopped(facts["stopped"]))
            yield TaskResult([Row.from_json(line) for line in facts.pop("rows")], **facts)
    except ray.exceptions.RayError as error:
        reason = last_line(error)
        kind = EngineError if "EngineError" in reason else LLMZipError
        raise kind(_stopped(reason)) from error


def _stopped(reason: str) -> str:
    return f"the run has stopped: {reason}; what is done is kept, run it again"


def results_of(
    ray: Any, runner: type, arguments: tuple[Any, ...], numbers: Sequence[int], resources: Resources, **remote: Any
) -> Iterator[str]:
    """Gives numbers to a pool of actors, one at a time; yields what they return as it comes.

    Args:
        ray: the module, connected.
        runner: class of the actors; called with a batch, the column `id`, it returns a column `result` of texts.
        arguments: of its constructor.
        numbers: what to give; a range costs no memory.
        resources: what each actor gets, and how many there are.
        remote: further options of the actors, as Ray takes them.
    """
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # a block is what an actor gets at once: one row
    # Ray takes few blocks from a reading task each time it looks, ten times a second where all actors are busy: ten
    # tasks a second at most would begin. A number is small, so it may have them all. Without the attribute, which is
    # not public, a run of many workers and short tasks only starts more slowly.
    if hasattr(context, "_max_num_blocks_in_streaming_gen_buffer"):
        context._max_num_blocks_in_streaming_gen_buffer = _NUMBERS_AT_ONCE
    # Numbers are made without a CPU: the actors may have all of them, and would wait for numbers for ever.
    tasks = ray.data.read_datasource(_numbers(numbers), num_cpus=0)
    results = tasks.map_batches(
        runner,
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ActorPoolStrategy(min_size=resources.min_workers, max_size=resources.max_workers),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        **remote,
    )
    for batch in results.iter_batches(batch_size=None, batch_format="numpy"):
        yield from batch["result"]


def _numbers(numbers: Sequence[int]) -> Any:
    """Returns a source of Ray Data that yields numbers, a block for each."""
    import pyarrow as pa
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    class Numbers(Datasource):  # type: ignore[misc, unused-ignore]  # Ray comes without types
        def estimate_inmemory_data_size(self) -> int:
            return _NUMBER_BYTES * len(numbers)

        def get_read_tasks(self, parallelism: int, *args: Any, **options: Any) -> list[Any]:
            parts = [numbers[n : n + _NUMBERS_AT_ONCE] for n in range(0, len(numbers), _NUMBERS_AT_ONCE)]
            return [ReadTask(functools.partial(_blocks, part), self._facts(part)) for part in parts]

        @staticmethod
        def _facts(part: Sequence[int]) -> Any:
            size = _NUMBER_BYTES * len(part)
            return BlockMetadata(num_rows=len(part), size_bytes=size, input_files=None, exec_stats=None)

    def _blocks(part: Sequence[int]) -> Iterator[Any]:
        return (pa.table({"id": [number]}) for number in part)

    source: Any = Numbers
    return source()
