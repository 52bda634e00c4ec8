"""What the command line asked for, checked and typed: the options of compress, decompress, test and list.

`Arguments` holds the options as click parsed them; `Arguments.request` checks which of them go together and makes the
`Request` that the rest of the program works with.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import click

from ..settings import DEFAULT_LEVEL, DEFAULT_MODEL, CompressSettings, DecompressSettings, EngineSettings
from ..system import filenames
from . import values


class Mode(enum.Enum):
    """What is done with each file; the values are those of `operation` in JSON."""

    COMPRESS = "compress"
    DECOMPRESS = "decompress"
    TEST = "test"
    LIST = "list"

    @property
    def writes_files(self) -> bool:
        """Whether each input has an output."""
        return self in (Mode.COMPRESS, Mode.DECOMPRESS)


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        mode: what to do with each file.
        compress: settings to compress with.
        decompress: settings to decompress with.
        suffix: suffix of archives.
        output: file of -o; None to derive the name from the input's.
        to_stdout: whether the output goes to the standard output.
        remove: whether each input is removed once its output is complete.
        force: whether to overwrite files and to read and write terminals and devices.
        json: whether -t and -l print JSON lines.
        offline: whether to download nothing.
        prompt_file: file of --prompt-file, which no output may replace.
        report: file of --report.
        resume: whether to keep what is done, and to continue an interrupted run.
        output_dir: folder of --output-dir, for all outputs; None to write each next to its input.
        places: path below `output_dir` for each input that has one; the others have their base name.
    """

    mode: Mode
    compress: CompressSettings = field(default_factory=CompressSettings)
    decompress: DecompressSettings = field(default_factory=DecompressSettings)
    suffix: str = ".llmz"
    output: str | None = None
    to_stdout: bool = False
    remove: bool = False
    force: bool = False
    json: bool = False
    offline: bool = False
    prompt_file: str | None = None
    report: str | None = None
    resume: bool = False
    output_dir: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    def target(self, name: str | None) -> str | None:
        """Returns the name of the output for an input; None for the standard output.

        Args:
            name: name of the input; None for the standard input.

        Raises:
            FileProblem: no name can be derived from the input's.
        """
        if self.output is not None:
            return self.output
        if self.to_stdout or name is None:
            return None
        if self.output_dir is not None:
            name = os.path.join(self.output_dir, self.places.get(name, os.path.basename(name)))
        if self.mode is Mode.COMPRESS:
            return filenames.add_suffix(name, self.suffix)
        return filenames.strip_suffix(name, self.suffixes)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of archives, which decompressing strips."""
        from ..format.headers import SUFFIX

        return (self.suffix,) if self.suffix == SUFFIX else (self.suffix, SUFFIX)


@dataclass(frozen=True)
class Arguments:
    """The options of a command line as click parsed them, unchecked; each field is named like the option's parameter.

    A command that lacks an option leaves its default.
    """

    operation: str | None = None
    level: int | None = None
    model: str | None = None
    offline: bool = False
    prompt_file: str | None = None
    arithmetic: str = CompressSettings.arithmetic
    dtype: str = CompressSettings.dtype
    context: int | None = None
    rows: int | None = None
    overlap: int | None = None
    window_bits: int | None = None
    model_reset: bool = True
    recovery: float | None = None
    with_model: bool = False
    frame_bytes: int | None = None
    threads: int | None = None
    device: str = EngineSettings.device
    output: str | None = None
    to_stdout: bool = False
    keep: bool = True
    force: bool = False
    suffix: str = ".llmz"
    json: bool = False
    report: str | None = None
    resume: bool = False
    output_dir: str | None = None

    def request(self, num_files: int, *, model_from_environment: bool) -> Request:
        """Checks which options go together, and reads the prompt.

        Args:
            num_files: number of inputs.
            model_from_environment: whether `model` came from the environment variable.

        Raises:
            click.UsageError: options contradict each other, or the prompt cannot be read.
            SettingsError: a value is out of its range.
        """
        mode = Mode(self.operation or Mode.COMPRESS.value)
        self._check(mode, num_files)
        engine = EngineSettings(device=self.device, threads=self.threads)
        prompt = values.read_prompt(self.prompt_file)
        compress = CompressSettings(
            level=self.level or DEFAULT_LEVEL,
            model=self.model or DEFAULT_MODEL,
            engine=engine,
            prompt=prompt,
            arithmetic=self.arithmetic,
            dtype=self.dtype,
            context=self.context,
            rows=self.rows,
            overlap=self.overlap,
            window_bits=self.window_bits,
            model_reset=self.model_reset,
            recovery=self.recovery,
            with_model=self.with_model,
            frame_bytes=self.frame_bytes,
        )
        # Decompressing takes no model from the environment: what an archive means must not depend on who reads it.
        decompress = DecompressSettings(None if model_from_environment else self.model, engine, prompt)
        return Request(
            mode,
            compress,
            decompress,
            suffix=self.suffix,
            output=None if self._names_stdout else self.output,
            to_stdout=self.to_stdout or self._names_stdout,
            remove=not self.keep,
            force=self.force,
            json=self.json,
            offline=self.offline,
            prompt_file=self.prompt_file,
            report=self.report,
            resume=self.resume,
            output_dir=self.output_dir,
        )

    @property
    def _names_stdout(self) -> bool:
        """Whether -o names the standard output."""
        return self.output is not None and (self.output == "-" or filenames.named_descriptor(self.output) == 1)

    def _check(self, mode: Mode, num_files: int) -> None:
        """Refuses options that contradict each other."""
        if self.json and mode.writes_files:
            raise click.UsageError("--json needs -l or -t; for other operations use --report FILE")
        if self.output is not None:
            if not mode.writes_files:
                raise click.UsageError("-o cannot be used with -l and -t, which write no file")
            if num_files > 1:
                raise click.UsageError("-o takes one input file; use -c to write several to the standard output")
            if self.to_stdout and not self._names_stdout:
                raise click.UsageError("-c and -o exclude each other")
        if self.output_dir is not None and (
            not mode.writes_files or self.to_stdout or self.output is not None or not self.output_dir
        ):
            raise click.UsageError("--output-dir needs a folder, and excludes -c, -o, -l and -t")
        if self.resume and (not mode.writes_files or self.to_stdout or self._names_stdout):
            raise click.UsageError("--resume needs files as output, not the standard output, -l or -t")
        if not self.suffix or "/" in self.suffix or os.sep in self.suffix:
            raise click.UsageError(f"the suffix {self.suffix!r} is empty or contains {os.sep}")
