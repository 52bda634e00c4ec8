"""What a training's weights depend on is a property of the machine, not of what else runs on it."""

from __future__ import annotations

import time

import pytest
import torch

from llmzip.training import machine

CPU = torch.device("cpu")


class InterruptedClock:
    """A clock on which some of the measured calls take 50 ms longer, as if the processor had been taken away.

    Args:
        interrupted: numbers of the measurements, each of which asks for the time twice.
    """

    def __init__(self, interrupted: range) -> None:
        self._interrupted, self._calls, self._lost = interrupted, 0, 0.0
        self._now = time.perf_counter

    def __call__(self) -> float:
        measurement, is_end = divmod(self._calls, 2)
        self._calls += 1
        if is_end and measurement in self._interrupted:
            self._lost += 0.05
        return self._now() + self._lost


@pytest.mark.parametrize("interrupted", [range(6), range(6, 12), range(20)])
def test_the_number_format_does_not_depend_on_other_programs(
    interrupted: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = machine.choose_dtype(CPU)
    monkeypatch.setattr(machine.time, "perf_counter", InterruptedClock(interrupted))
    assert machine.choose_dtype(CPU) == undisturbed


def test_choosing_the_number_format_leaves_the_threads_alone() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        machine.choose_dtype(CPU)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
