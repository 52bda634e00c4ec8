"""Runs the programs of a job one after another and measures each. Knows no compressors, and imports little.

Run it by its path, `python -I -S launch.py`, with a job as JSON on the standard input. The peak memory that the system
reports for a child includes what its parent used when it started the child: so the parent is this small process instead
of all of llmzip.
"""

from __future__ import annotations

import json
import os
import sys
import time

TYPE_CHECKING = False  # type checkers assume that it is true; importing typing would cost memory
if TYPE_CHECKING:
    from typing import Any


_READ_CHARACTERS = 1 << 16  # of the standard error
_MAX_REASON = 200  # characters of its last line that are shown


def run(step: dict[str, Any]) -> dict[str, Any]:
    """Runs one program.

    Args:
        step: `arguments`; the working directory `folder`; files for `stdin`, `stdout` and `stderr`; the file `output`
            that it must write, which is removed first.

    Returns:
        `seconds` and `peak_bytes`, or `error` and, if a signal killed it, `signal`.
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
            lines = [line.strip() for line in file.read(_READ_CHARACTERS).splitlines() if line.strip()]
        reason = f": {lines[-1][:_MAX_REASON]}" if lines else ""
        return {"error": f"exit status {code}{reason}"} if code > 0 else {"error": f"crashed{reason}", "signal": -code}
    if not os.path.exists(step["output"]):
        return {"error": f"exit status 0, but it wrote no file {os.path.basename(step['output'])}"}
    return {"seconds": seconds, "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)}


def needs_more(times: list[float], repeat: dict[str, Any]) -> bool:
    """Returns whether to measure one more round: at most `max_runs`, and none after `enough_seconds` in total."""
    return not times or (len(times) < repeat["max_runs"] and sum(times) < repeat["enough_seconds"])


def main() -> None:
    """Reads the job and writes the result: `times`, one for each round over all steps, and `peak_bytes`; or `error`."""
    job = json.load(sys.stdin)
    times: list[float] = []
    peak = 0
    while needs_more(times, job["repeat"]):
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
