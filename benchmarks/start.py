"""Measures time and memory of whole processes with a text of 1 KB, beside an import of numpy: `make bench-start`.

Each command runs `--times` times, in turn with the others; medians are printed. `shared` is memory that eight processes
with the model loaded take together, each page divided by the number of processes that map it (Linux's PSS).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_TEXT = b"The tide comes in, and the harbour master writes it down in the book that nobody else may open. " * 12
_SERVER = """
import sys, llmzip
text = b"The tide comes in, and the harbour master writes it down. " * 17
assert llmzip.decompress(llmzip.compress(text, model=sys.argv[1])) == text
print("ready", flush=True)
sys.stdin.read()
"""


def commands(folder: Path, model: str) -> dict[str, list[str]]:
    """Returns what is run, by name; the files that it needs are there afterwards."""
    text, archive = folder / "text", folder / "text.llmz"
    text.write_bytes(_TEXT[:1000])
    llmzip = [sys.executable, "-m", "llmzip"]
    subprocess.run([*llmzip, "-kf", "-m", model, str(text)], check=True, capture_output=True)
    return {
        "import numpy": [sys.executable, "-c", "import numpy"],
        "import llmzip": [sys.executable, "-c", "import llmzip"],
        "compress": [*llmzip, "-c", "-m", model, str(text)],
        "decompress": [*llmzip, "-dc", str(archive)],
        "-l": [*llmzip, "-l", str(archive)],
        "--help": [*llmzip, "--help"],
    }


def run(command: list[str]) -> tuple[float, float]:
    """Returns the seconds and the peak memory in MB of a process."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: {errors.decode()}")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024  # Linux counts KiB


def pool_memory(model: str, processes: int) -> tuple[float, float]:
    """Returns the PSS in MB of one process with the model in use, and of several together; of both 0.0 off Linux."""
    if not Path("/proc/self/smaps_rollup").exists():
        return 0.0, 0.0
    found = []
    for count in (1, processes):
        pool = [
            subprocess.Popen(
                [sys.executable, "-c", _SERVER, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for _ in range(count)
        ]  # fmt: skip
        for process in pool:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        found.append(sum(_pss(process.pid) for process in pool))
        for process in pool:
            process.communicate()
    return found[0], found[1]


def _pss(process: int) -> float:
    """Returns a process's proportional share of memory in MB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main() -> int:
    """Prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        all_commands = commands(Path(folder), args.model)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in all_commands}
        for _ in range(args.times):
            for name, command in all_commands.items():
                found[name].append(run(command))
    medians = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    print("| process | seconds | times an import of numpy | MB |\n|---|---:|---:|---:|")
    for name, (seconds, megabytes) in medians.items():
        print(f"| {name} | {seconds:.3f} | {seconds / medians['import numpy'][0]:.2f} | {megabytes:.0f} |")
    one, together = pool_memory(args.model, args.processes)
    print(f"\none process with the model in use: {one:.0f} MB; {args.processes} together: {together:.0f} MB (PSS)")
    args.output.mkdir(parents=True, exist_ok=True)
    results = {"model": args.model, "medians": medians, "pss": {"1": one, str(args.processes): together}}
    (args.output / "start.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
