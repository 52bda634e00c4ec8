"""The child process that compresses or decompresses with a library or llmzip, and measures itself.

Run it as `python -m llmzip.bench.worker` with a job as JSON on the standard input; the result is JSON on the standard
output. Model and libraries are loaded and used once before anything is timed.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..codec.report import StreamReport
from ..errors import LLMZipError
from ..settings import CompressSettings, DecompressSettings, EngineSettings
from ..system import process
from . import launch, peers

_WARM_UP = b"It was raining, and nobody on the quay had thought of that. " * 3

Work = Callable[[bytes], "tuple[bytes, StreamReport | None]"]
"""One direction: bytes -> bytes, and the report of llmzip."""


def peak_bytes() -> int:
    """Returns the peak memory of this process in bytes, on Linux from /proc: getrusage includes the parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024)


def _library(job: dict[str, Any]) -> tuple[Work, Work]:
    """Returns the functions that compress and decompress with a library."""
    library = next(library for library in peers.LIBRARIES if library.label == job["label"])

    def pack(data: bytes) -> tuple[bytes, None]:
        return library.compress(data), None

    def unpack(data: bytes) -> tuple[bytes, None]:
        return library.decompress(data), None

    return pack, unpack


def _llmzip(job: dict[str, Any]) -> tuple[Work, Work]:
    """Returns the functions that compress and decompress with llmzip."""
    from ..codec.reader import decompress_stream
    from ..codec.writer import compress_stream

    packing = _packing(job)
    unpacking = DecompressSettings(job["model"], packing.engine)

    def pack(data: bytes) -> tuple[bytes, StreamReport]:
        sink = io.BytesIO()
        report = compress_stream(io.BytesIO(data), sink, packing)
        return sink.getvalue(), report

    def unpack(data: bytes) -> tuple[bytes, StreamReport]:
        sink = io.BytesIO()
        report = decompress_stream(io.BytesIO(data), sink, unpacking)
        return sink.getvalue(), report

    return pack, unpack


def _packing(job: dict[str, Any]) -> CompressSettings:
    engine = EngineSettings(device=job["device"], threads=job["threads"])
    return CompressSettings(level=job["level"], model=job["model"], engine=engine)


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Measures one direction of one row.

    Args:
        job: `kind` "library" with `label`, or "llmzip" with `level`, `model`, `device`, `threads`; `unpacks`; the files
            `sources` and, to compress, `sinks`; `warm_up`, a file for the archive of a first text, which compressing
            writes and decompressing reads; `repeat` as for the launcher.

    Returns:
        `times`, `load_seconds`, `peak_bytes`, the `digests` of the outputs, and of llmzip `methods`, `bound_bits` and
        `model_bytes`.
    """
    started = time.perf_counter()
    pack, unpack = (_llmzip if job["kind"] == "llmzip" else _library)(job)
    # Each direction warms up alone, because the memory of the other one must not count.
    if job["unpacks"]:
        unpack(Path(job["warm_up"]).read_bytes())
    else:
        Path(job["warm_up"]).write_bytes(pack(_WARM_UP)[0])
    load_seconds = time.perf_counter() - started
    run = unpack if job["unpacks"] else pack
    times: list[float] = []
    digests: list[str] = []
    reports: list[StreamReport] = []
    while launch.needs_more(times, job["repeat"]):
        total, digests, reports = 0.0, [], []
        for number, source in enumerate(job["sources"]):
            data = Path(source).read_bytes()
            started = time.perf_counter()
            output, report = run(data)
            total += time.perf_counter() - started
            digests.append(hashlib.sha256(output).hexdigest())
            if report is not None:
                reports.append(report)
            if not job["unpacks"]:
                Path(job["sinks"][number]).write_bytes(output)
        times.append(total)
    return {
        "times": times,
        "load_seconds": load_seconds,
        "peak_bytes": peak_bytes(),
        "digests": digests,
        **_facts(reports, job),
    }


def _facts(reports: list[StreamReport], job: dict[str, Any]) -> dict[str, Any]:
    """Returns what llmzip reports about its archives; nothing for libraries and for decompressing."""
    if not reports or job["unpacks"]:
        return {}
    frames = [frame for report in reports for frame in report.frames]
    bounds = [frame.bound_bits for frame in frames if frame.bound_bits is not None]
    return {
        "methods": sorted({frame.method for frame in frames}),
        "bound_bits": sum(bounds) if frames and len(bounds) == len(frames) else None,
        "model_bytes": _model_bytes(job) if any(report.model is not None for report in reports) else 0,
    }


def _model_bytes(job: dict[str, Any]) -> int:
    """Returns by how much --with-model makes an archive larger."""
    from ..format.writing import pack_carried, pack_header
    from ..inference.on_demand import ModelOnDemand

    model = ModelOnDemand.of(_packing(job))
    headers = [len(pack_header(model.archive_header(by_record=by_record))) for by_record in (False, True)]
    return len(pack_carried(model.carried())) + headers[1] - headers[0]


def main() -> int:
    """Answers the job; an expected error is an answer too."""
    process.share_the_cores()
    with process.standard_output() as stdout:
        try:
            result = work(json.load(sys.stdin))
        except MemoryError:
            result = {"error": "out of memory"}
        except LLMZipError as error:
            result = {"error": str(error)}
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        stdout.write(json.dumps(result).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
