"""The architecture as a table: which package may import which, and where third-party packages are used."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmzip

PACKAGE = Path(llmzip.__file__).parent
MODULES = sorted(
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
    if "__pycache__" not in file.parts
)

LAYERS = (
    ("__main__",),
    ("cli",),
    ("cluster", "ray", "datatrove"),
    ("training", "bench", "measures", "__init__"),
    ("api",),
    ("codec",),
    ("recovery", "windows"),
    ("inference",),
    ("engines",),
    ("models", "mixing"),
    ("format",),
    ("system", "numerics", "settings"),
    ("errors", "_version"),
)
"""Top to bottom: a module may import its own package, and packages or modules of the layers below."""

ONLY_IN = {
    "torch": {"engines", "models", "numerics", "system", "training"},
    "numpy": {
        "cli", "cluster", "codec", "engines", "inference", "measures", "mixing", "models", "numerics", "ray",
        "recovery", "training", "windows",
    },
    "constriction": {"mixing"},
    "tokenizers": {"cluster", "models", "training"},
    "safetensors": {"models", "training"},
    "gguf": {"models"},
    "huggingface_hub": {"models"},
    "zstandard": {"bench", "codec", "training"},
    "brotli": {"bench"},
    "matplotlib": {"bench", "measures"},
    "ray": {"cluster"},
    "pyarrow": {"cluster", "ray"},
    "fsspec": {"cluster", "datatrove"},
    "datatrove": {"datatrove"},
    "click": {"cli"},
    "tqdm": {"cli"},
    "transformers": {"engines"},
    "triton": {"engines"},
}  # fmt: skip
"""Third-party package -> the packages that import it."""

NEVER = {"requests", "urllib", "http", "socket", "pickle"}
"""The Hub's library does all networking, and pickles are never read."""

TRITON = {f"engines.gpu.{name}" for name in ("attention", "counts", "primitives", "products", "rowwise")}
"""Kernels for CUDA devices, imported when such a device is used."""


def layer(module: str) -> int:
    """The number of a module's layer, from the top."""
    return next(number for number, names in enumerate(LAYERS) if module.partition(".")[0] in names)


def imports(module: str) -> Iterator[str]:
    """Absolute names of everything a module imports, at its top level, in functions or for types only."""
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    package = ["llmzip", *module.split(".")[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def internal(module: str) -> set[str]:
    """Modules of the package that a module imports."""
    names = {name.removeprefix("llmzip.") for name in imports(module) if name.split(".")[0] == "llmzip"}
    candidates = [
        (name, f"{name}.__init__", name.rpartition(".")[0], f"{name.rpartition('.')[0]}.__init__") for name in names
    ]
    return {next((name for name in found if name in MODULES), "__init__") for found in candidates}


def output_of(code: str) -> str:
    """What a fresh interpreter prints."""
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PYTHONPATH": path},
    ).stdout


def test_imports_are_found() -> None:
    assert internal("settings") == {"errors"}
    assert {"mixing.coder", "format.plan", "engines.base"} <= internal("codec.intervals")
    assert {"torch", "llmzip.numerics.tables"} <= {*imports("numerics.ops"), *imports("codec.rows")}
    assert {name.partition(".")[0] for name in MODULES} == {name for names in LAYERS for name in names}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    own = module.partition(".")[0]
    for name in internal(module):
        assert name.partition(".")[0] == own or layer(name) > layer(module), f"{module} imports {name}"


def test_there_are_no_cycles() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join([*path, module])}"
        if module not in done:
            for name in internal(module):
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_third_party_packages_are_used_where_they_belong(package: str) -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == package for name in imports(module))}
    assert {user.partition(".")[0] for user in users} == ONLY_IN[package]


def test_every_third_party_package_is_listed() -> None:
    names = {name.split(".")[0] for module in MODULES for name in imports(module)}
    assert names - set(sys.stdlib_module_names) - {"llmzip"} == set(ONLY_IN)
    assert not names & NEVER


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_and_says_what_it_does(module: str) -> None:
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if module in TRITON:
        pytest.importorskip("triton", reason="Triton is not installed")
    if module in ONLY_IN:  # there only for those who use that package
        pytest.importorskip(module, reason=f"{module} is not installed")
    if module != "__main__":
        importlib.import_module(f"llmzip.{module}".removesuffix(".__init__"))


def test_importing_llmzip_loads_no_third_party_package() -> None:
    use = "[getattr(llmzip, name) for name in llmzip.__all__]"
    names = json.loads(output_of(f"import llmzip, sys, json; {use}; print(json.dumps(sorted(sys.modules)))"))
    assert "llmzip.codec.reader" in names
    assert not {name.partition(".")[0] for name in names} & (set(ONLY_IN) - {"zstandard"})


def test_the_command_line_loads_no_torch() -> None:
    # --help, --version, -l and info must be quick.
    names = [
        f"llmzip.{name}".removesuffix(".__init__") for name in MODULES if name.startswith(("cli", "api", "format"))
    ]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    assert output_of(code + "print(sorted({'torch', 'huggingface_hub', 'transformers'} & set(sys.modules)))") == "[]\n"


def test_the_engines_load_no_triton() -> None:
    code = "import sys, llmzip.codec.rows, llmzip.inference.load, llmzip.engines.gpu.frequencies\n"
    assert output_of(code + "print('triton' in sys.modules)") == "False\n"


def test_all_lists_exactly_the_public_names() -> None:
    assert {*llmzip.__all__} <= {*dir(llmzip)}
    public = {
        name
        for name in dir(llmzip)
        if not name.startswith("_") and not isinstance(getattr(llmzip, name), types.ModuleType)
    }
    public -= {"TYPE_CHECKING", "Any"}
    assert sorted(public | {"__version__"}) == sorted(llmzip.__all__) == llmzip.__all__


def test_public_names_are_imported_when_they_are_used() -> None:
    code = "import llmzip, sys\nprint('llmzip.api.file' in sys.modules)\nllmzip.open\n"
    assert output_of(code + "print('llmzip.api.file' in sys.modules)") == "False\nTrue\n"
    with pytest.raises(AttributeError, match="no attribute 'inflate'"):
        _ = llmzip.inflate


def test_every_public_name_is_documented() -> None:
    for name in llmzip.__all__:
        if name != "__version__":
            assert getattr(llmzip, name).__doc__, name
