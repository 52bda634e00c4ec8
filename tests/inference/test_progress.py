"""Progress in bytes and in tokens, and the limit on what decoded tokens may stand for."""

from __future__ import annotations

import numpy as np
import pytest

from llmzip.errors import CorruptError
from llmzip.inference.progress import ByteMeter, in_bytes


def twice_as_many(tokens: np.ndarray) -> int:
    return 2 * len(tokens)


def test_tokens_are_reported_in_bytes() -> None:
    reported: list[int] = []
    progress = in_bytes(reported.append, twice_as_many)
    assert progress is not None
    progress(np.arange(3))
    progress(np.arange(5))
    assert reported == [6, 10]


def test_nobody_to_report_to_makes_no_callback() -> None:
    assert in_bytes(None, twice_as_many) is None


def test_a_meter_refuses_more_bytes_than_there_may_be() -> None:
    reported: list[int] = []
    meter = ByteMeter(twice_as_many, 1010, reported.append)
    meter.add(np.arange(500))
    meter.add(np.arange(5))
    with pytest.raises(CorruptError, match=r"^damaged: the data stands for more than the 1,010 bytes it should$"):
        meter.add(np.arange(1))
    assert reported == [1000, 10]
