"""Checks the direction of imports, what is imported only where, and that the public names are the documented ones."""

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

LOWEST = {"errors", "forks", "settings", "container", "_version"}
"""May import nothing of the package but errors and the versions."""

_TRAINS = {
    f"training.{name}"
    for name in ("checkpoint", "finish", "hfweights", "machine", "network", "optimizer", "prepare", "trainer")
}

TRITON = {f"engines.gpu.{name}" for name in ("attention", "counts", "primitives", "products", "rowwise")}
"""The kernels of CUDA devices: imported when such a device is used."""

ONLY_IN = {
    "torch": {"engines", "lanes", "passes", "rows", "runtime", "scoring", "trial", "windowed", *_TRAINS},
    "constriction": {"coder"},
    "numba": {"mixing"},
    "tokenizers": {"tokens", "training.bpe"},
    "safetensors": {"engines", "training.checkpoint", "training.finish"},
    "zstandard": {"bench.peers", "methods", "training.texts", "training.finish"},
    "brotli": {"bench.peers"},
    "matplotlib": {"bench.chart", "plots"},
    "click": {
        "benchcli",
        "cli",
        "commands",
        "distancecli",
        "entropycli",
        "estimatecli",
        "entropyextras",
        "modelscli",
        "options",
        "packetscli",
        "traincli",
        "windowscli",
    },
    "huggingface_hub": {"hub"},
    "transformers": {"engines.floating", "engines.floatload"},
    "triton": {*TRITON, "engines.gpu.backend"},
    "tqdm": {"messages"},
}
"""Third-party package -> the modules, or whole packages, that may import it; all others must not."""

LOADS_TORCH = {*ONLY_IN["torch"], "training.command", "packetcodec", "windowframe"}
"""Modules and packages whose import loads torch."""

NEVER = {"requests", "urllib", "http", "socket", "pickle"}
"""What the package does not need: the library of the Hub does all that goes over a network, and no pickles are read."""


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """Absolute names of what a module imports anywhere in it, and whether that is at the top level and for real."""
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ["llmzip", *module.split(".")[:-1]]

    def walk(node: ast.AST, real: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, real) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) + 1 - child.level] if child.level else []
                prefix = ".".join([*base, *([child.module] if child.module else [])])
                for alias in child.names:
                    whole = f"{prefix}.{alias.name}"
                    is_module = whole.removeprefix("llmzip.") in MODULES or prefix == "llmzip"
                    yield (whole if is_module else prefix), real
            else:
                checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda))
                yield from walk(child, real and not checking and not inside)

    yield from walk(tree, True)


def internal(module: str) -> set[str]:
    """Modules of the package that a module imports, anywhere in it."""
    names = {name.removeprefix("llmzip.") for name, _ in imports(module) if name.startswith("llmzip.")}
    return {
        name if name in MODULES else f"{name}.__init__" if f"{name}.__init__" in MODULES else "__init__"
        for name in names
    }


def belongs(module: str, places: set[str]) -> bool:
    """Whether a module, or the package that it is in, is among some."""
    return module in places or module.partition(".")[0] in places


def python(code: str) -> str:
    """The output of a fresh interpreter."""
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_walk_finds_what_is_there() -> None:
    assert internal("settings") == {"errors"}
    assert {"coder", "plan", "engines.base", "errors"} <= internal("rows")
    assert ("torch", True) in imports("rows") and ("llmzip.engines.tables", True) in imports("engines.ops")
    assert ("tokenizers", False) in imports("tokens")


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports(module: str) -> None:
    if module in TRITON:
        pytest.importorskip("triton", reason="Triton is not installed")
    if module != "__main__":
        importlib.import_module(f"llmzip.{module}".removesuffix(".__init__"))


@pytest.mark.parametrize("module", sorted(LOWEST & set(MODULES)))
def test_the_lowest_modules_import_nothing_above_them(module: str) -> None:
    assert internal(module) <= ({"errors", "_version", "streams"} if module in ("container", "settings") else set())


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_the_command_line(module: str) -> None:
    assert module == "__main__" or not internal(module) & {"cli", "__main__"}
    assert module == "cli" or not internal(module) & {
        "benchcli",
        "distancecli",
        "entropycli",
        "estimatecli",
        "traincli",
        "modelscli",
        "packetscli",
        "windowscli",
    }


@pytest.mark.parametrize("module", [module for module in MODULES if module.split(".")[0] != "training"])
def test_nothing_needs_the_training_but_its_command(module: str) -> None:
    found = {name for name in internal(module) if name.split(".")[0] == "training"}
    assert found == ({"training.command", "training.settings"} if module == "traincli" else set())


@pytest.mark.parametrize("module", [module for module in MODULES if module.split(".")[0] not in ("bench", "benchcli")])
def test_nothing_needs_the_benchmark_but_its_command(module: str) -> None:
    assert not {name for name in internal(module) if name.split(".")[0] == "bench"}


def test_measuring_and_tables_of_the_benchmark_do_not_know_each_other() -> None:
    assert internal("bench.launch") == internal("bench.results") == set()
    assert internal("bench.machine") <= {"_version"}
    assert internal("bench.peers") <= {"errors"}
    assert internal("bench.chart") <= {"bench.results"}
    assert not internal("bench.measure") & {"bench.chart", "bench.worker", "codec"}


def test_the_options_of_the_training_do_not_import_it() -> None:
    own = {name: real for name, real in imports("traincli") if name.startswith("llmzip.training.")}
    assert own == {"llmzip.training.command": False, "llmzip.training.settings": False}


def test_shapes_texts_and_rates_do_not_know_each_other() -> None:
    assert internal("training.shapes") <= {"errors"}
    assert internal("training.schedule") == set()
    assert internal("training.texts") <= {"errors"}
    assert internal("training.bpe") <= {"errors"}
    assert internal("training.machine") == set()
    assert internal("training.checkpoint") <= {"errors"}
    assert internal("training.dataset") <= {"errors", "tokens", "training.texts"}
    assert internal("training.network") <= {"training.shapes"}
    assert internal("training.optimizer") <= {"training.schedule", "training.shapes"}


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("engines.")])
def test_engines_know_nothing_of_archives_texts_and_files(module: str) -> None:
    allowed = {name for name in MODULES if name.startswith("engines.")} | {
        "errors",
        "forks",
        "layout",
        "_version",
        "compiledlib",
    }
    assert internal(module) <= allowed


def test_formats_coder_methods_and_tokens_do_not_know_each_other() -> None:
    assert internal("coder") <= {"errors", "mixing.rangecoder"}
    assert internal("mixing.rangecoder") <= {"compiledlib", "errors", "mixing.library"}
    assert internal("tokens") <= {"errors", "tokentables"}
    assert internal("tokentables") <= {"errors", "layout"}
    assert internal("methods") <= {"errors", "container"}
    assert internal("models") <= {
        "errors", "container", "hub", "layout", "settings", "engines.families", "engines.config",
    }  # fmt: skip
    assert internal("layout") <= {"errors"}
    assert internal("hub") <= {"errors", "layout"}
    assert internal("report") == set()
    assert internal("windows") == set()
    assert internal("packets") <= {"container", "errors", "streams"}


def test_scores_know_models_and_measures_know_scores() -> None:
    allowed = {"engines.base", "engines.floating", "engines.freqs", "engines.memory", "errors", "passes", "plan"}
    assert internal("scoring") <= {*allowed, "runtime"}
    assert internal("entropy") == {"scoring"}


def test_what_is_shown_of_scores_knows_no_models_and_no_files() -> None:
    assert internal("surprisal") == internal("surprisallook") == set()
    assert internal("surprisalpage") == {"scoring", "surprisal", "surprisallook"}
    assert internal("plots") == {"errors"}
    assert not internal("entropyprint") & {"scoring", "runtime", "surprisal", "fileops"}


def test_estimates_and_distances_know_no_files_and_no_options() -> None:
    assert internal("extrapolation") == set()
    assert internal("places") == {"container", "methods", "streams"}
    assert not internal("trial") & {"codec", "container", "drafts", "estimate", "fileops", "models"}
    assert internal("distance") == {"errors", "runtime", "scoring"}
    assert not internal("estimate") & {"commands", "fileops", "messages", "options", "records"}


def test_there_are_no_cycles() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join([*path, module])}"
        if module not in done:
            for name in internal(module) - {"__init__", "engines.__init__"}:
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_packages_are_imported_only_where_they_belong(package: str) -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == package for name, _ in imports(module))}
    assert users, f"nothing imports {package}"
    assert [user for user in users if not belongs(user, ONLY_IN[package])] == []
    unused = {place for place in ONLY_IN[package] if not any(belongs(user, {place}) for user in users)}
    assert not unused, f"{unused} may import {package} and need it no more"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_needs_a_network_or_a_pickle(module: str) -> None:
    assert not {name.split(".")[0] for name, _ in imports(module)} & NEVER


def test_the_container_needs_only_the_standard_library() -> None:
    for name, _ in imports("container"):
        assert name.split(".")[0] in sys.stdlib_module_names or name.startswith("llmzip.")


def test_importing_llmzip_loads_no_torch() -> None:
    loaded = python("import llmzip, sys, json; print(json.dumps(sorted(sys.modules)))")
    names = set(json.loads(loaded))
    assert "llmzip.codec" in names
    heavy = {"torch", "transformers", "huggingface_hub", "tokenizers", "safetensors", "constriction", "numpy"}
    assert not names & {*heavy, "tqdm", "click"}


def test_the_engines_load_no_triton() -> None:
    code = "import sys, llmzip.runtime, llmzip.rows, llmzip.engines.gpu.frequencies\nprint('triton' in sys.modules)"
    assert python(code) == "False\n"


def test_modules_above_the_engines_load_no_torch() -> None:
    # --help, --version, -l and info need these, and must be quick.
    above = [module for module in MODULES if not belongs(module, LOADS_TORCH) and module != "__main__"]
    assert {"cli", "codec", "hub", "listing", "modelscli", "traincli", "training.texts"} <= set(above)
    names = [f"llmzip.{module}".removesuffix(".__init__") for module in above]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    assert python(code + "print(sorted({'torch', 'huggingface_hub'} & set(sys.modules)))") == "[]\n"


def test_all_names_exactly_the_public_names() -> None:
    public = {
        name
        for name, value in vars(llmzip).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert sorted(public | {"__version__"}) == sorted(llmzip.__all__) == llmzip.__all__


def test_every_public_name_is_documented() -> None:
    for name in llmzip.__all__:
        if name != "__version__":
            assert getattr(llmzip, name).__doc__, name


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_does(module: str) -> None:
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
