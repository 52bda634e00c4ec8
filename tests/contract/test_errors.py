"""Checks the exception tree: the drawing in its module, the exit codes, and what callers may rely on."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from llmzip import errors

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.LLMZipError)
}
BRANCH = re.compile(r"^(?P<indent>[| `-]*)(?P<name>\w+)(?:\((?P<base>\w+)\))? +exit (?P<code>\d)(?: {3}\S.*)?$")


def drawn_tree() -> dict[str, tuple[str | None, str | None, int]]:
    """Name -> parent in the drawing, the other base, exit code."""
    tree: dict[str, tuple[str | None, str | None, int]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = BRANCH.match(line)
        if match:
            depth = len(match["indent"]) // 4
            path = [*path[:depth], match["name"]]
            tree[match["name"]] = path[depth - 1] if depth else None, match["base"], int(match["code"])
    return tree


def test_the_drawing_names_every_class() -> None:
    assert set(drawn_tree()) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_drawing_is_true(name: str) -> None:
    parent, base, code = drawn_tree()[name]
    bases = {cls.__name__ for cls in CLASSES[name].__bases__}
    assert bases == {part for part in (parent, base) if part}
    assert CLASSES[name].exit_code == code
    assert inspect.getdoc(CLASSES[name])


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_errors_carry_their_text_through_pickle(name: str) -> None:
    error = pickle.loads(pickle.dumps(CLASSES[name]("what is wrong")))
    assert type(error) is CLASSES[name] and str(error) == "what is wrong"


def test_exit_codes_are_different_and_never_those_of_success() -> None:
    codes = [errors.EXIT_OK, errors.EXIT_FAILED, errors.EXIT_USAGE, errors.EXIT_MODEL, errors.EXIT_DAMAGED]
    assert codes == [0, 1, 2, 3, 4]
    assert all(cls.exit_code in codes[1:] for cls in CLASSES.values())
