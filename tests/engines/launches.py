"""Compiles what the GPU backend would launch, for devices that are not here: programs are recorded, not run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

_TYPES = {
    torch.float32: "*fp32", torch.int8: "*i8", torch.int16: "*i16", torch.int32: "*i32", torch.int64: "*i64",
    float: "fp32", int: "i32",
}  # fmt: skip
_NOT_EXACT = re.compile(r"fma\.\S+|\S*\.ftz\S*|div\.full\S*|\S*approx\S*|\S*tf32\S*|\S*mma\S*\.f(?:16|32)\S*")


@dataclass(frozen=True)
class Launch:
    """A kernel with the types of its arguments, its constants and its options."""

    kernel: Any
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[int, ...]
    options: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        sizes = ",".join(f"{name}={value}" for name, value in self.constants)
        return f"{self.kernel.fn.__name__}({sizes})"

    def compile(self, capability: int) -> Any:
        """For a device of a compute capability, 90 for 9.0; no such device is needed."""
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        attributes = {(number,): [["tt.divisibility", 16]] for number in self.aligned}
        source = ASTSource(self.kernel, dict(self.signature), dict(self.constants), attrs=attributes)
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(self.options))


def inexact(ptx: str) -> set[str]:
    """Instructions of a program that round more or less than once, or that flush small values."""
    return set(_NOT_EXACT.findall(ptx))


class Recorder:
    """Stands in for the modules of the kernels."""

    def __init__(self) -> None:
        self.launches: dict[Launch, None] = {}

    def module(self, module: ModuleType) -> SimpleNamespace:
        """The same kernels, which only note that they were launched."""
        return SimpleNamespace(**{name: self._kernel(value) for name, value in self._kernels(module)})

    def _kernels(self, module: ModuleType) -> Iterator[tuple[str, Any]]:
        for name, value in vars(module).items():
            if hasattr(value, "arg_names") and not name.startswith("_"):
                yield name, value

    def _kernel(self, kernel: Any) -> Any:
        recorder = self

        class Launcher:
            def __getitem__(self, grid: tuple[int, ...]) -> Any:
                assert all(0 < size < (1 << 31 if axis == 0 else 1 << 16) for axis, size in enumerate(grid))
                return lambda *arguments, **named: recorder._note(kernel, arguments, named)

        return Launcher()

    def _note(self, kernel: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        names = kernel.arg_names
        values = dict(zip(names, arguments, strict=False))
        options = {name: value for name, value in named.items() if name not in names}
        values |= {name: value for name, value in named.items() if name in names}
        assert set(values) == set(names), f"{kernel.fn.__name__} lacks {set(names) - set(values)}"
        constants = {param.name: values[param.name] for param in kernel.params if param.is_constexpr}
        free = {param.name for param in kernel.params if param.do_not_specialize}
        signature, aligned = {}, []
        for number, name in enumerate(names):
            value = values[name]
            if name in constants:
                signature[name] = "constexpr"
                continue
            signature[name] = _TYPES[value.dtype if isinstance(value, torch.Tensor) else type(value)]
            if isinstance(value, torch.Tensor) or (type(value) is int and not value % 16 and name not in free):
                aligned.append(number)
        launch = Launch(
            kernel, tuple(signature.items()), tuple(constants.items()), tuple(aligned), tuple(options.items())
        )
        self.launches[launch] = None
