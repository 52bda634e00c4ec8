"""What people and programs see of a run on a cluster: a bar, a line for each failure, a row for each file, a table."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..command import Output
from ..messages import Messages
from ..outcomes import overall_exit_status
from ..units import bits_per_byte_text, duration_text, percentage_text, speed_text

if TYPE_CHECKING:
    from ...cluster.job import Operation
    from ...cluster.rows import Row
    from ...cluster.worker import TaskResult

_MAX_WORKERS_SHOWN = 100


@dataclass
class _WorkerTotals:
    """What a worker has done."""

    tasks: int = 0
    num_bytes: int = 0
    seconds: float = 0.0


@dataclass
class RunPrinter:
    """Follows a run and prints it.

    Attributes:
        output: where rows and the summary go.
        messages: where failures go.
        operation: what is done.
        advance: moves the bar; None without one.
    """

    output: Output
    messages: Messages
    operation: Operation
    advance: Callable[[int], Any] | None
    _files: int = 0
    _kept: int = 0
    _bytes: int = 0
    _bits: int = 0
    _tokens: int = 0
    _statuses: list[int] = field(default_factory=list)
    _workers: dict[str, _WorkerTotals] = field(default_factory=dict)
    _started: float = field(default_factory=time.perf_counter)

    def row(self, row: Row) -> None:
        """Prints the row of a file that is done or has failed."""
        self.output.record(**asdict(row))
        if row.error is not None:
            self._statuses.append(row.exit_status)
            self.messages.error(row.path, row.error)
            return
        if row.offset == 0:
            self._files += 1
            self._kept += row.kept
        self._bytes += row.bytes or 0
        self._bits += row.bits or 0
        self._tokens += row.tokens or 0

    def done(self, result: TaskResult) -> None:
        """Moves the bar."""
        totals = self._workers.setdefault(result.worker, _WorkerTotals())
        totals.tasks += 1
        totals.num_bytes += result.num_bytes
        totals.seconds += result.seconds
        if self.advance is not None:
            self.advance(result.num_bytes)

    @property
    def exit_status(self) -> int:
        """Exit status of the run."""
        return overall_exit_status(self._statuses)

    def summarize(self) -> None:
        """Prints the sums, and with -v what each worker has done."""
        elapsed = time.perf_counter() - self._started
        self.output.record(
            total=True,
            files=self._files,
            kept=self._kept,
            failed=len(self._statuses),
            bytes=self._bytes,
            bits=self._bits,
            tokens=self._tokens,
            workers=len(self._workers),
            elapsed_seconds=round(elapsed, 6),
        )
        notes = [f"{self._kept:,} kept from before"] if self._kept else []
        notes += [f"{len(self._statuses):,} failed"] if self._statuses else []
        noted = f" ({', '.join(notes)})" if notes else ""
        self.output.line(f"{self._files:,} {'file' if self._files == 1 else 'files'}{noted}: {self._sizes()}")
        workers = "one worker" if len(self._workers) == 1 else f"{len(self._workers):,} workers"
        self.output.line(f"{duration_text(elapsed)} on {workers}, {speed_text(self._bytes, elapsed)}")
        if self.messages.verbosity > 0:
            self._print_workers()

    def _sizes(self) -> str:
        from ...cluster.job import Operation

        packed = -(-self._bits // 8)
        rate = f"{bits_per_byte_text(self._bytes, packed)} bits/byte"
        match self.operation:
            case Operation.COMPRESS:
                return f"{self._bytes:,} -> {packed:,} bytes ({percentage_text(self._bytes, packed)}, {rate})"
            case Operation.DECOMPRESS:
                return f"{packed:,} -> {self._bytes:,} bytes ({rate})"
            case Operation.TEST:
                return f"OK, {packed:,} -> {self._bytes:,} bytes ({rate})"
            case Operation.ENTROPY:
                exact = f"{self._bits / self._bytes:.4f} bits/byte" if self._bytes else "-"
                return f"{self._bytes:,} bytes, {self._tokens:,} tokens, {self._bits:,} bits, {exact}"

    def _print_workers(self) -> None:
        self.messages.fact(f"{'worker':<32} {'tasks':>8} {'bytes':>16} {'busy':>10} {'speed':>12}")
        for name, totals in sorted(self._workers.items())[:_MAX_WORKERS_SHOWN]:
            speed = speed_text(totals.num_bytes, totals.seconds)
            busy = f"{totals.seconds:.1f} s"
            self.messages.fact(f"{name:<32} {totals.tasks:>8,} {totals.num_bytes:>16,} {busy:>10} {speed:>12}")
        if len(self._workers) > _MAX_WORKERS_SHOWN:
            self.messages.fact(f"and {len(self._workers) - _MAX_WORKERS_SHOWN:,} more")
