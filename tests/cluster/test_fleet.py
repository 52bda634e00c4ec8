"""Where a cluster is looked for."""

from __future__ import annotations

import socket

import pytest

from llmzip.cluster import fleet
from llmzip.errors import LLMZipError


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://localhost:{}", "ray://127.0.0.1:{}?x=1"])
def test_an_address_where_nothing_answers_is_refused_at_once(form: str) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen
        address = form.format(taken.getsockname()[1])
        with pytest.raises(LLMZipError, match=r"cannot be reached at .*: .*refused"), fleet.connected(address):
            pass


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "[::1]:0"])
def test_what_cannot_be_an_address_is_refused_in_a_line(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(LLMZipError) as caught, fleet.connected(address):
        pass
    assert address in str(caught.value) and "\n" not in str(caught.value)
