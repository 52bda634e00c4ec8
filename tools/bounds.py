"""Prints the lower bounds of pyproject.toml as constraints for pip, for `make test-oldest`.

    python tools/bounds.py [--without NAME...]

A bound of NAME>=VERSION becomes NAME==VERSION. Names after --without are left to the other packages' needs.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
_REQUIREMENT = re.compile(r'"([A-Za-z0-9._-]+)>=([0-9.]+)"')


def bounds(text: str) -> dict[str, str]:
    """Names of the packages that a project depends on, its extras' and its build's too, and their lowest versions."""
    return dict(_REQUIREMENT.findall(text.partition("[project.scripts]")[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="packages that are not bound")
    left = parser.parse_args().without
    for name, version in sorted(bounds(PYPROJECT.read_text(encoding="utf-8")).items()):
        if name not in left:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
