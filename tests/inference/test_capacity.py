"""Checks what is done when memory is short, and the limit of decoded bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llmzip.errors import CorruptError, ResourceError
from llmzip.inference.capacity import with_smaller_batches
from llmzip.inference.progress import ByteMeter


def test_batches_are_halved_until_the_work_fits(hash_engine: Callable[..., Any]) -> None:
    engine, reporting = hash_engine(batch_tokens=1000), []

    def work(progress: Any) -> str:
        reporting.append(progress is not None)
        if engine.batch_tokens > 300:
            raise MemoryError
        return "done"

    assert with_smaller_batches(engine, work, lambda ids: None) == "done"
    assert engine.batch_tokens == 250 and reporting == [True, False, False]


@pytest.mark.parametrize(("batch_tokens", "stepwise", "calls"), [(64, False, 1), (65, False, 2), (1024, True, 1)])
def test_what_never_fits_is_an_error(
    hash_engine: Callable[..., Any], batch_tokens: int, stepwise: bool, calls: int
) -> None:
    engine, called = hash_engine(batch_tokens=batch_tokens), []
    engine.stepwise = stepwise

    def work(progress: Any) -> None:
        called.append(progress)
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(ResourceError):
        with_smaller_batches(engine, work, None)
    assert len(called) == calls


def test_other_errors_are_passed_on(hash_engine: Callable[..., Any]) -> None:
    def work(progress: Any) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        with_smaller_batches(hash_engine(), work, None)


def test_the_byte_limit_is_reached_and_not_passed() -> None:
    done: list[int] = []
    limit = ByteMeter(lambda ids: 2 * len(ids), 10, done.append)
    limit.add(np.arange(3))
    limit.add(np.arange(2))
    with pytest.raises(CorruptError, match="more than the 10 bytes it should"):
        limit.add(np.arange(1))
    assert done == [6, 4]
