"""Leaves out parts of torch that llmzip's own process need not import. Must not be used in a caller's program.

A quarter of torch's import time goes into Python forms of its operators for tensors without data, which compilers and
transformers use and the exact engine never does. The module exists, but is empty until `complete` is called.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_NAMES = ("torch._meta_registrations",)


class _Empty(Loader):
    """A loader that creates a module without running it."""

    def __init__(self, whole: Loader) -> None:
        self.whole = whole

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Finder(MetaPathFinder):
    """A finder that gives the modules of _NAMES an empty loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in _NAMES else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Empty(spec.loader)
        return spec


_finder = _Finder()


def defer() -> None:
    """Makes the next import of torch leave the parts out; does nothing if torch is already imported."""
    if "torch" not in sys.modules and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def complete() -> None:
    """Loads the parts that were left out, and leaves out none from now on."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name in _NAMES:
        module = sys.modules.get(name)
        loader = module.__spec__.loader if module is not None and module.__spec__ is not None else None
        if module is not None and module.__spec__ is not None and isinstance(loader, _Empty):
            module.__spec__.loader = loader.whole
            loader.whole.exec_module(module)
