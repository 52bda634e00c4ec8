"""The command `llmzip grep`: its options, its files and its exit status, which are those of grep."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from ...errors import LLMZipError, SettingsError
from ...format.headers import MAGIC, SUFFIX
from ...settings import DecompressSettings, EngineSettings
from ...system import filenames, fileops, process
from ...system.failures import explain
from ...system.filenames import FileProblem
from ...system.streams import DescriptorWriter, OutputError, Prefixed, read_some, read_upto
from .. import options
from ..command import has_colours
from ..matching import Matcher
from ..messages import Messages
from ..request import Mode, Request
from ..search import Binary, Search, Show, Style
from ..small import small_input
from ..values import read_prompt

if TYPE_CHECKING:
    from ...codec.ahead import DecodedAhead

EXIT_STATUS = """\b
Exit status, as of grep:
  0      a line was selected
  1      no line was selected
  2      an error, even if lines were selected, unless -q is given
  128+n  ended by signal n
"""

_SELECTED, _NONE, _ERROR = 0, 1, 2
_STDIN = "(standard input)"  # as grep names it
_READ_BYTES = 1 << 20


def _flag(*names: str, text: str) -> options.Decorator:
    return click.option(*names, is_flag=True, help=text)


def _number(*names: str, text: str) -> options.Decorator:
    return click.option(*names, metavar="NUM", type=click.IntRange(min=0), help=text)


_matching = options.together(
    click.option("-e", "--regexp", "patterns", metavar="PATTERN", multiple=True, help="A PATTERN; may be repeated."),
    _flag("-F", "--fixed-strings", "fixed", text="PATTERN is a string, not an expression."),
    _flag("-i", "--ignore-case", text="Take upper and lower case as the same."),
    _flag("-v", "--invert-match", "inverted", text="Select the lines that do not match."),
    _flag("-w", "--word-regexp", "whole_words", text="Match whole words only."),
    _flag("-x", "--line-regexp", "whole_lines", text="Match whole lines only."),
    _number("-m", "--max-count", text="Stop after NUM lines of a file."),
    _flag("-E", "-P", "any_syntax", text="Accepted, without effect: the syntax is Python's in any case."),
)
_printing = options.together(
    _flag("-c", "--count", text="Print only the number of selected lines of each file."),
    _flag("-l", "--files-with-matches", "with_matches", text="Print only the names of files with a selected line."),
    _flag("-L", "--files-without-match", "without_match", text="Print only the names of files without one."),
    _flag("-o", "--only-matching", text="Print only what matches, each match on a line of its own."),
    _flag("-q", "--quiet", "--silent", text="Print nothing, and end with status 0 at the first selected line."),
    _flag("-s", "--no-messages", text="Print nothing about files that cannot be opened or read."),
    _flag("-n", "--line-number", "numbers", text="Print the numbers of lines; the first is 1."),
    click.option(
        "-H/-h", "--with-filename/--no-filename", "names", default=None,
        help="Print the names of files, or do not.  [default: with several files]",
    ),
    _flag("-Z", "--null", text="End names with a NUL byte."),
    _number("-A", "--after-context", "after", text="Print NUM lines after each selected one."),
    _number("-B", "--before-context", "before", text="Print NUM lines before each selected one."),
    _number("-C", "--context", "around", text="Print NUM lines on both sides."),
    _flag("-a", "--text", "as_text", text="Print lines of binary texts, too: of those with a NUL byte."),
    _flag("-I", "skip_binary", text="Select nothing in binary texts."),
    click.option(
        "--color", "--colour", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True,
        help="Colour matches, names and numbers. auto: on a terminal, unless NO_COLOR is set or TERM is dumb.",
    ),
)  # fmt: skip


@click.command("grep", context_settings={"help_option_names": ["--help"], "max_content_width": 100}, epilog=EXIT_STATUS)
@click.argument("words", nargs=-1, metavar="PATTERN [FILE]...")
@_matching
@_printing
@click.option("--model", metavar="NAME|PATH", help=options.DECOMPRESS_MODEL)
@options.prompt
@options.engine
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@options.version
def grep_command(words: tuple[str, ...], **values: Any) -> int:
    """Print the lines that match PATTERN, of archives and of other files.

    Archives are decoded as they are read, and nothing is written to a disk. With no FILE, or when FILE is -, read the
    standard input; where there is no FILE, but FILE.llmz, that is read. PATTERN is a regular expression in the syntax
    of Python's re module, matched against each line as text in UTF-8. With -e, all words are FILEs.

    \b
    llmzip grep -n 'ERROR|WARN' logs/2026-03-02-gateway.log.llmz
    llmzip grep -ci error logs/*.llmz
    llmzip grep -C2 -F 'gateway[812]' logs/2026-03-02-gateway.log.llmz
    """
    try:
        run = _Run.of(words, values)
    except SettingsError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error
    return run.status()


@dataclass
class _Run:
    """One run of grep.

    Attributes:
        matcher: its patterns.
        style: how results are printed.
        names: names of its files; None for the standard input.
        settings: how archives are decoded.
        messages: what the user reads about errors.
        tolerant: whether files that cannot be read are passed over in silence.
        color: value of --color.
        shows_names: value of -H and -h; None for neither.
    """

    matcher: Matcher
    style: Style
    names: list[str | None]
    settings: DecompressSettings
    messages: Messages
    tolerant: bool
    color: str
    shows_names: bool | None

    @classmethod
    def of(cls, words: tuple[str, ...], values: dict[str, Any]) -> _Run:
        """Returns the run that options ask for.

        Raises:
            click.UsageError: they contradict each other, or there is no pattern.
            SettingsError: a pattern is not an expression, or a value is out of its range.
        """
        patterns = values["patterns"]
        if not patterns:
            if not words:
                raise click.UsageError("a PATTERN is missing", click.get_current_context())
            patterns, words = words[:1], words[1:]
        matcher = Matcher(
            patterns, **{name: values[name] for name in ("fixed", "ignore_case", "whole_words", "whole_lines")}
        )
        engine = EngineSettings(device=values["device"], threads=values["threads"])
        settings = DecompressSettings(values["model"], engine, read_prompt(values["prompt_file"]))
        names = [filenames.input_name(word) for word in words or ("-",)]
        names = [name and filenames.existing_name(name, SUFFIX) for name in names]
        messages = Messages(debug=values["debug"])
        return cls(
            matcher, _style(values), names, settings, messages, values["no_messages"], values["color"], values["names"]
        )

    def status(self) -> int:
        """Searches all files. Returns the exit status."""
        if self.style.max_count == 0 and self.style.show is not Show.OTHER_NAMES:
            return _NONE  # as grep: nothing can be selected, so that no file is opened
        found = failed = False
        with process.standard_output() as stdout:
            self.style.coloured = has_colours(self.color, stdout.fileno())
            self.style.names = len(self.names) > 1 if self.shows_names is None else self.shows_names
            ahead = self._ahead()
            names = self.names if ahead is None else ahead.upcoming(self.names, self._small)
            for name in names:
                try:
                    found |= self._searched(name, stdout, ahead)
                except BrokenPipeError:
                    raise
                except OutputError as error:
                    self.messages.error(process.STDOUT, explain(error)[1], error)
                    process.abandon_standard_output()
                    return _ERROR
                except Exception as error:
                    failed = True
                    self._failed(_STDIN if name is None else name, error)
                if found and self.style.show is Show.NOTHING:
                    return _SELECTED
        return _ERROR if failed else _SELECTED if found else _NONE

    def _failed(self, name: str, error: Exception) -> None:
        """Says what is wrong with a file, unless -s forbids it."""
        if not (self.tolerant and isinstance(error, (OSError, FileProblem))):
            self.messages.error(name, explain(error, name)[1], error)

    def _ahead(self) -> DecodedAhead | None:
        """Returns what decodes small archives together, if all files are searched anyway."""
        if len(self.names) < 2 or self.style.show is Show.NOTHING:
            return None
        from ...codec.ahead import DecodedAhead  # here, so that --help is quick

        return DecodedAhead(self.settings)

    def _small(self, name: str | None) -> bytes | None:
        """Returns a small archive; None for everything else."""
        from ...codec.ahead import MAX_ARCHIVE_BYTES

        data = small_input(name, Request(Mode.TEST), MAX_ARCHIVE_BYTES)
        return data if data is not None and data.startswith(MAGIC) else None

    def _searched(self, name: str | None, stdout: DescriptorWriter, ahead: DecodedAhead | None) -> bool:
        """Searches one file. Returns whether a line was selected.

        Raises:
            LLMZipError, FileProblem, OSError: it cannot be read. What was found before is printed.
        """
        shown = os.fsencode(_STDIN if name is None else name)
        search = Search(self.matcher, self.style, shown, stdout.write)
        failure: Exception | None = None
        try:
            with fileops.open_source(name) as source, contextlib.closing(self._texts(source.file, ahead)) as texts:
                while not search.is_over and (text := next(texts, None)) is not None:
                    search.add(text)
        except LLMZipError as error:
            failure = error
        if failure is None or self.style.show not in (Show.COUNT, Show.OTHER_NAMES):  # of a part they would mislead
            search.finish()
        if failure is not None and not (search.num_selected and self.style.show is Show.NOTHING):
            raise failure
        return search.num_selected > 0

    def _texts(self, file: BinaryIO, ahead: DecodedAhead | None) -> Generator[bytes, None, None]:
        """Yields the text of an archive, or of a file that is none, in pieces."""
        head = read_upto(file, len(MAGIC))
        stream: Any = Prefixed(head, file)
        if head != MAGIC:
            yield from iter(functools.partial(read_some, stream, _READ_BYTES), b"")
            return
        from ...codec.reader import decoded_texts

        if file.seekable():
            file.seek(-len(head), os.SEEK_CUR)
            stream = file
        yield from decoded_texts(stream, self.settings, ahead=ahead, side_by_side=True)


def _style(values: dict[str, Any]) -> Style:
    """Returns how results are printed."""
    shows = {
        Show.NOTHING: values["quiet"],
        Show.NAMES: values["with_matches"],
        Show.OTHER_NAMES: values["without_match"],
        Show.COUNT: values["count"],
        Show.MATCHES: values["only_matching"],
    }
    if values["with_matches"] and values["without_match"]:
        raise click.UsageError("-l and -L exclude each other", click.get_current_context())
    binary = Binary.TEXT if values["as_text"] else Binary.SKIP if values["skip_binary"] else Binary.SAY
    show = next((show for show, wanted in shows.items() if wanted), Show.LINES)
    contexts = (
        [values["around"], values["before"], values["after"]] if show in (Show.LINES, Show.MATCHES) else [None] * 3
    )
    around, before, after = contexts
    return Style(
        show=show,
        binary=binary,
        numbers=values["numbers"],
        null=values["null"],
        inverted=values["inverted"],
        max_count=values["max_count"],
        before=(around or 0) if before is None else before,
        after=(around or 0) if after is None else after,
        separated=any(number is not None for number in contexts),
    )
