"""Prints the lower bounds of pyproject.toml as constraints for pip, for `make test-oldest`.

    python tools/bounds.py [--without NAME...]

A bound NAME>=VERSION becomes NAME==VERSION. Packages after --without get no constraint.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
_REQUIREMENT = re.compile(r'"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?>=([0-9.]+)"')


def bounds(text: str) -> dict[str, str]:
    """Returns the lowest version of each package that a project, its extras or its build depend on."""
    return dict(_REQUIREMENT.findall(text.partition("[project.scripts]")[0]))


def main() -> None:
    """Prints one constraint a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="packages without a constraint")
    skipped = parser.parse_args().without
    for name, version in sorted(bounds(PYPROJECT.read_text(encoding="utf-8")).items()):
        if name not in skipped:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
