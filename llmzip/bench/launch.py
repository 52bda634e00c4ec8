"""Runs a job's programs one after another and measures each; must not know compressors, and imports little.

Run by its path, `python -I -S launch.py`, with a job as JSON on the standard input. What a system says about the memory
of a child begins at the memory that its parent had: so the parent is this small process, and not all of llmzip.
"""

from __future__ import annotations

import json
import os
import sys
import time

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost memory
if TYPE_CHECKING:
    from typing import Any


def run(step: dict[str, Any]) -> dict[str, Any]:
    """One program.

    Args:
        step: `arguments`; `folder` to be in; `stdin`, `stdout`, `stderr` as files; `output` is removed first.

    Returns:
        `seconds` and `peak_bytes`, or `error` and maybe the `signal` that killed it.
    """
    os.chdir(step["folder"])
    if os.path.exists(step["output"]):
        os.unlink(step["output"])
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, step["stdin"] or os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, step["stdout"] or os.devnull, write, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, step["stderr"], write, 0o600),
    ]
    started = time.perf_counter()
    try:
        process = os.posix_spawn(step["arguments"][0], step["arguments"], dict(os.environ), file_actions=actions)
    except OSError as error:
        return {"error": f"cannot be started: {error.strerror}"}
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    if code:
        with open(step["stderr"], encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file.read(1 << 16).splitlines() if line.strip()]
        said = f": {lines[-1][:200]}" if lines else ""
        return {"error": f"exit status {code}{said}"} if code > 0 else {"error": f"crashed{said}", "signal": -code}
    if not os.path.exists(step["output"]):
        return {"error": f"exit status 0, but it wrote no file {os.path.basename(step['output'])}"}
    return {"seconds": seconds, "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)}


def goes_on(times: list[float], repeat: dict[str, Any]) -> bool:
    """Whether one more round is to be measured: up to `most` of them, but not after `enough_seconds`."""
    return not times or (len(times) < repeat["most"] and sum(times) < repeat["enough_seconds"])


def main() -> None:
    """Reads the job, writes the result: `times`, one for each round over all steps, and `peak_bytes`, or `error`."""
    job = json.load(sys.stdin)
    times: list[float] = []
    peak = 0
    while goes_on(times, job["repeat"]):
        total = 0.0
        for step in job["steps"]:
            result = run(step)
            if "error" in result:
                print(json.dumps(result))
                return
            total += result["seconds"]
            peak = max(peak, result["peak_bytes"])
        times.append(total)
    print(json.dumps({"times": times, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
