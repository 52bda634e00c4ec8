"""What a run would take: sizes and hours, extrapolated from a sample that one worker works on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..codec.reader import FrameDecoder
from ..errors import LLMZipError
from ..format.reading import read_archives
from ..measures.estimate import estimate
from ..measures.extrapolation import Range, standard_error
from ..system.failures import explain
from ..system.filenames import FileProblem
from .fleet import Resources, last_line
from .job import Job, Operation
from .rows import shown_path
from .tasks import InputFile
from .whole import measured_row

_SAMPLED_FILES = 8
_SECONDS = 40.0
"""About how long the sample may take, all files together."""

_MEASURED_BYTES = 1 << 17
"""Text that entropy is timed with in a file, 128 KiB."""

_SPREAD = 0.1
"""Least half of the range of a time, as a part of it: no two runs take the same."""

_ERRORS = 2.0
"""Standard errors on each side of a range."""


@dataclass(frozen=True)
class Sample:
    """What one file of the sample gave.

    Attributes:
        input_bytes: bytes of input that it stands for.
        output_bytes: of them, after the operation; 0 for an operation without outputs.
        seconds: that a worker takes for them.
        sampled_bytes: bytes that were worked on.
    """

    input_bytes: int
    output_bytes: float
    seconds: float
    sampled_bytes: int


@dataclass(frozen=True)
class Forecast:
    """What a run would take.

    Attributes:
        output_bytes: size of all outputs; None for an operation without outputs.
        worker_seconds: of all workers together.
        seconds: from start to end, on the largest number of workers.
        workers: that number.
        sampled_files, sampled_bytes: what it is extrapolated from.
    """

    output_bytes: Range | None
    worker_seconds: Range
    seconds: Range
    workers: int
    sampled_files: int
    sampled_bytes: int


def forecast(ray: Any, job: Job, files: Any, resources: Resources) -> Forecast:
    """Works on a sample with one worker, and extrapolates.

    Args:
        ray: the module, connected.
        job: what would be done.
        files: the inputs, a `run.Inputs`.
        resources: of each worker, and how many there would be at most.

    Raises:
        LLMZipError: the sample failed.
    """
    sampled = list(sampled_files(files, files.num_bytes))
    remote = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(take_samples)
    try:
        samples, problem = ray.get(remote.remote(job, sampled, _SECONDS))
    except ray.exceptions.RayError as error:
        raise LLMZipError(f"the sample failed: {last_line(error)}") from error
    if problem is not None and not samples:
        raise LLMZipError(f"the sample failed: {problem}")
    return extrapolated(job, samples, files.num_bytes, resources.max_workers)


def sampled_files(files: Any, total_bytes: int) -> Iterator[InputFile]:
    """Yields files at even distances of the bytes, so that one is the likelier the larger it is."""
    step = total_bytes / _SAMPLED_FILES
    seen, wanted = 0, step / 2
    for file in files:
        seen += file.size_bytes
        if file.size_bytes and seen >= wanted:
            yield file
            while wanted <= seen:
                wanted += step


def take_samples(job: Job, files: list[InputFile], seconds: float) -> tuple[list[Sample], str | None]:
    """Works on files of the sample, on a worker.

    Returns:
        what the files gave that did not fail, and in a line why the last of the others failed.
    """
    samples, problem = [], None
    for file in files:
        try:
            samples.append(_sample(job, file, seconds / len(files)))
        except (LLMZipError, FileProblem, OSError) as error:
            path = shown_path(job.source.uri_of(file.name))
            problem = f"{path}: {explain(error, path)[1]}"
    return samples, problem


def _sample(job: Job, file: InputFile, seconds: float) -> Sample:
    match job.operation:
        case Operation.COMPRESS:
            return _compressed(job, file, seconds)
        case Operation.ENTROPY:
            return _measured(job, file)
        case Operation.DECOMPRESS | Operation.TEST:
            return _decoded(job, file, seconds)


def _compressed(job: Job, file: InputFile, seconds: float) -> Sample:
    with job.source.open(file.name) as source:
        estimated = estimate(source, job.compress, seconds)
    size, taken = estimated.compressed_bytes.value, estimated.compress_seconds.value
    return Sample(file.size_bytes, size, taken, estimated.sampled_bytes)


def _measured(job: Job, file: InputFile) -> Sample:
    begin = max(0, file.size_bytes - _MEASURED_BYTES) // 2
    end = min(begin + _MEASURED_BYTES, file.size_bytes)
    started = time.perf_counter()
    measured_row(job, file, begin, end, started, "")
    taken = time.perf_counter() - started
    return Sample(file.size_bytes, 0, taken * file.size_bytes / (end - begin), end - begin)


def _decoded(job: Job, file: InputFile, seconds: float) -> Sample:
    """Decodes an archive's first frames until the time is up."""
    decoder = FrameDecoder(job.decompress)
    text = packed = 0
    with job.source.open(file.name) as source:
        frames = decoder.prepare(read_archives(source))
        started = time.perf_counter()
        for frame in frames:
            text += len(decoder.decode(frame))
            packed += frame.size_bytes
            if time.perf_counter() - started > seconds:
                break
    taken = time.perf_counter() - started
    scale = file.size_bytes / max(1, packed)
    output = text * scale if job.operation.writes_files else 0.0
    return Sample(file.size_bytes, output, taken * scale, text)


def extrapolated(job: Job, samples: list[Sample], total_bytes: int, workers: int) -> Forecast:
    """Returns the forecast for all inputs.

    Args:
        job: what would be done.
        samples: of the files in the sample; none if there is nothing to do.
        total_bytes: size of all inputs.
        workers: number of workers.
    """
    inputs = [float(sample.input_bytes) for sample in samples]
    scale = total_bytes / sum(inputs) if samples else 0.0

    def total(numbers: list[float], least: float) -> Range:
        spread = max(_ERRORS * standard_error(numbers, inputs), least)
        return Range.exactly(sum(numbers) * scale).spread(spread)

    is_whole = sum(sample.sampled_bytes for sample in samples) == total_bytes
    output = total([sample.output_bytes for sample in samples], 0.0 if is_whole else 0.01)
    worker_seconds = total([sample.seconds for sample in samples], _SPREAD)
    return Forecast(
        output if job.operation.writes_files else None,
        worker_seconds,
        worker_seconds.scaled(1 / workers),
        workers,
        len(samples),
        sum(sample.sampled_bytes for sample in samples),
    )
