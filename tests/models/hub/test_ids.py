"""Checks which names are taken for ids on the Hub: they become parts of paths, and may come from an archive."""

from __future__ import annotations

import pytest

from llmzip.models import hub
from llmzip.models.hub import HubId

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "name", "revision"),
    [
        ("gpt2", "gpt2", None),
        ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M", None),
        ("org/name@main", "org/name", "main"),
        ("org/name@v1.0", "org/name", "v1.0"),
        ("org/name@refs/pr/4", "org/name", "refs/pr/4"),
        ("a_b/c.d-e_f", "a_b/c.d-e_f", None),
        (f"org/name@{COMMIT}", "org/name", COMMIT),
        ("a" * 96, "a" * 96, None),
    ],
)
def test_ids(text: str, name: str, revision: str | None) -> None:
    assert hub.parse(text) == HubId(name, revision)
    assert str(hub.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "@main",
        "a/b/c",
        "/etc/passwd",
        "../../etc",
        "..",
        "a/..",
        "a/../b",
        "org/na..me",
        "org--name",
        "org/a--b",
        "-org/name",
        "org/-name",
        "org/name-",
        ".org/name",
        "org/.name",
        "org/name.",
        "org./name",
        "org//name",
        "org/",
        "/name",
        "./name",
        "org/name.git",
        "a b",
        "org/name\n",
        "org/na\x1bme",
        "org/na\0me",
        "org\\name",
        "C:name",
        "~",
        "*",
        "órg/name",
        "org/name@",
        "org/name@..",
        "org/name@../../x",
        "org/name@a/../b",
        "org/name@/etc",
        "org/name@a//b",
        "org/name@-x",
        "org/name@x.",
        "org/name@a b",
        "org/name@main\n",
        "org/name@a@b",
        "a" * 97,
        "org/name@" + "a" * 97,
    ],
)
def test_what_is_no_id(text: str) -> None:
    assert hub.parse(text) is None


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:39], COMMIT.upper(), COMMIT + "0", "v1"])
def test_only_all_digits_of_a_commit_are_a_commit(revision: str | None) -> None:
    assert HubId("org/name", revision).commit is None
    assert HubId("org/name", COMMIT).commit == COMMIT


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_500, "1.5 KB"), (269_060_552, "269.1 MB")],
)
def test_sizes(size: int, text: str) -> None:
    assert hub.size_text(size) == text
