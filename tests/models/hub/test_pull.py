"""Checks downloads against a Hub on this machine: what is fetched, what is refused, what is said, what never is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from fake_hub import TEXT, Program, Server, commit_of, fill

NAME = "keepers/lighthouse"
FIRST, SECOND = commit_of(1), commit_of(2)
SECRET = "hf_doNotTellAnybody"


def facts(out: str) -> dict[str, str]:
    """The lines of a table of two columns."""
    return dict(line.split(maxsplit=1) for line in out.splitlines())


def snapshot(program: Program, commit: str = FIRST) -> Path:
    return program.cache / "models--keepers--lighthouse" / "snapshots" / commit


# -- the whole way -----------------------------------------------------------------------------------------------------


def test_compress_downloads_once_and_decompress_never(
    program: Program, server: Server, files: dict[str, bytes], tmp_path: Path
) -> None:
    server.add(NAME, files)
    code, out, err = program("compress", "-1", "--model", NAME, "book.txt", "--progress", HF_TOKEN=SECRET)
    assert (code, out) == (0, "")
    size = sum(map(len, files.values())) - len(files["config.json"])
    notices = [line for line in err if "llmzip: " in line]
    assert len(notices) == 1
    assert f"llmzip: downloading {NAME} (commit {FIRST[:12]}, {size / 1e6:.1f} MB) into {program.cache}" in notices[0]
    assert any(NAME.split("/")[1] in line and "%" in line for line in err)  # our bar, not the library's
    assert not any("Fetching" in line or ("B/s" in line and "safetensors" in line) for line in err)
    assert sorted(server.fetched()) == sorted(files)
    assert server.tokens == {f"Bearer {SECRET}"}
    assert not any(SECRET in line for line in err)
    assert all(path.startswith((f"/api/models/{NAME}", f"/{NAME}/")) for _, path in server.requests)
    assert not any("torch" in str(agent) or "agent/" in str(agent) for agent in server.agents)  # nobody is told

    server.requests.clear()
    code, out, err = program("-l", "--json", "book.txt.llmz")
    (entry,) = json.loads(out)["archives"]
    assert entry["model"] == f"{NAME}@{FIRST}"
    assert program("compress", "-m", NAME, "noise.bin")[0] == 0
    assert program("-dc", "book.txt.llmz") == (0, TEXT.decode(), [])
    assert server.requests == []

    program.cache.rename(tmp_path / "away")
    code, out, err = program("-dc", "book.txt.llmz")
    assert (code, out, server.requests) == (3, "", [])
    (line,) = err
    assert NAME in line and FIRST in line and entry["model_digest"] in line
    command = re.search(r"`llmzip (models pull \S+)`", line)
    assert command is not None
    assert program(*command[1].split())[0] == 0
    assert program("-dc", "book.txt.llmz") == (0, TEXT.decode(), [])


@pytest.mark.parametrize(
    ("options", "environment"),
    [(["--offline"], {}), ([], {"HF_HUB_OFFLINE": "1"}), ([], {"TRANSFORMERS_OFFLINE": "1"})],
)
def test_offline_means_no_request(
    program: Program, server: Server, files: dict[str, bytes], options: list[str], environment: dict[str, str]
) -> None:
    server.add(NAME, files)
    code, out, err = program(*options, "--model", NAME, "book.txt", **environment)
    assert (code, out, len(err)) == (3, "", 1)
    assert "not in the Hugging Face cache" in err[0] and f"`llmzip models pull {NAME}`" in err[0]
    assert server.requests == []
    assert not (program.folder / "book.txt.llmz").exists()


def test_the_variable_for_the_model_downloads_too_but_not_for_other_operations(
    program: Program, server: Server, files: dict[str, bytes]
) -> None:
    server.add(NAME, {**files, "config.json": b'{"model_type": "bert"}'})  # so that it ends early
    for arguments in (["-d", "x.llmz"], ["-l", "x.llmz"], ["-t", "x.llmz"], ["info", "x.llmz"]):
        program(*arguments, LLMZIP_MODEL=NAME)
    assert server.requests == []
    code, _, err = program("book.txt", LLMZIP_MODEL=NAME)
    assert code == 3 and len(err) == 1 and server.requests


def test_nothing_comes_before_the_data(program: Program) -> None:
    code = (
        "from llmzip.cli import main\n"
        "from llmzip.models import choice\n"
        "choice.fetch_model = lambda ref, *rest, **options: print('a library talks') or ref\n"
        "main.main(['-c', 'noise.bin'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=program.folder, env=program.environment, capture_output=True, check=True
    )
    assert done.stdout.startswith(b"\xf7LZ")
    assert done.stderr == b"a library talks\n"


# -- what is fetched ---------------------------------------------------------------------------------------------------


def test_pull_prints_commit_and_folder(program: Program, server: Server, files: dict[str, bytes]) -> None:
    server.add(NAME, files)
    code, out, err = program("models", "pull", NAME)
    assert code == 0
    assert facts(out) == {"name": NAME, "commit": FIRST, "folder": str(snapshot(program))}
    assert len(err) == 1 and err[0].startswith("llmzip: downloading")
    assert {path.name: path.read_bytes() for path in snapshot(program).iterdir()} == files
    code, out, err = program("models", "pull", "--json", f"{NAME}@{FIRST}")
    assert (code, err) == (0, [])  # all is here: nothing to announce
    assert json.loads(out) == {"schema": 1, "name": NAME, "commit": FIRST, "folder": str(snapshot(program))}
    assert sorted(server.fetched()) == sorted(files)
    assert program("models", "verify", NAME)[0] == 0


def test_quiet_means_quiet(program: Program, server: Server, files: dict[str, bytes]) -> None:
    server.add(NAME, files)
    assert program("models", "pull", "-q", NAME)[::2] == (0, [])


def test_only_what_llmzip_reads_is_fetched(program: Program, server: Server, files: dict[str, bytes]) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}}
    wanted = {name: data for name, data in files.items() if name != "model.safetensors"} | {
        "model.safetensors.index.json": json.dumps(index).encode(),
        shards[0]: files["model.safetensors"],
        shards[1]: files["model.safetensors"][::-1],
        "generation_config.json": b"{}",
        "merges.txt": b"#version",
        "tokenizer.model": b"sentencepiece",
    }
    others = {
        "README.md": b"#",
        ".gitattributes": b"",
        "consolidated.safetensors": b"the same weights a second time",
        "pytorch_model.bin": b"pickle",
        "tf_model.h5": b"",
        "flax_model.msgpack": b"",
        "rust_model.ot": b"",
        "model.pt": b"",
        "modeling_own.py": b"import os",
        "original/consolidated.00.safetensors": b"",
        "original/params.json": b"{}",
        "onnx/model.onnx": b"",
        "onnx/config.json": b"{}",
    }
    server.add(NAME, wanted | others)
    assert program("models", "pull", NAME)[0] == 0
    assert sorted(server.fetched()) == sorted(wanted)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["model.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        (["one.safetensors", "two.safetensors", "original/three.safetensors"], ["one.safetensors", "two.safetensors"]),
        (["original/model.safetensors"], None),
    ],
)
def test_weights_without_an_index(
    program: Program, server: Server, files: dict[str, bytes], names: list[str], wanted: list[str] | None
) -> None:
    rest = {name: data for name, data in files.items() if name != "model.safetensors"}
    server.add(NAME, rest | {name: files["model.safetensors"] + name.encode() for name in names})
    assert program("models", "pull", NAME)[0] == (3 if wanted is None else 0)
    assert [name for name in server.fetched() if name.endswith(".safetensors")] == (wanted or [])


def test_on_a_terminal_there_is_one_bar_and_it_is_ours(
    program: Program, server: Server, files: dict[str, bytes]
) -> None:
    repository = server.add(NAME, files)
    repository.stalls = "model.safetensors"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with program.start("models", "pull", NAME, stderr=theirs, TERM="xterm") as process:
        os.close(theirs)
        assert repository.stalled.wait(30)
        time.sleep(1)
        process.kill()
    shown = b""
    with contextlib.suppress(OSError):  # how the end looks from this side
        while data := os.read(ours, 1 << 16):
            shown += data
    os.close(ours)
    assert b"keepers/lighthouse (commit" in shown
    bars = {line.split(b":")[0].strip() for line in re.split(rb"[\r\n]+", shown) if b"%|" in line}
    assert bars == {b"lighthouse"}, shown


def test_branches_and_tags_and_commits(
    program: Program, server: Server, files: dict[str, bytes], other_files: dict[str, bytes]
) -> None:
    repository = server.add(NAME, files)
    repository.files[SECOND] = other_files
    repository.commits |= {"refs/pr/4": SECOND, SECOND: SECOND}
    for revision, commit in (("", FIRST), ("@main", FIRST), ("@refs/pr/4", SECOND), (f"@{SECOND}", SECOND)):
        code, out, _ = program("models", "pull", NAME + revision)
        assert (code, facts(out)["commit"]) == (0, commit)
    refs = program.cache / "models--keepers--lighthouse" / "refs"
    assert {str(path.relative_to(refs)): path.read_text() for path in refs.rglob("*") if path.is_file()} == {
        "main": FIRST,
        "refs/pr/4": SECOND,
    }
    repository.commits["main"] = SECOND
    assert facts(program("models", "pull", NAME)[1])["commit"] == SECOND
    assert (refs / "main").read_text() == SECOND


def test_an_answer_about_another_commit_is_not_believed(
    program: Program, server: Server, files: dict[str, bytes]
) -> None:
    repository = server.add(NAME, files)
    repository.commits[SECOND] = FIRST
    code, _, err = program("models", "pull", f"{NAME}@{SECOND}")
    assert code == 3 and "names no commit, or another one" in err[0]
    repository.commits["main"] = "../../elsewhere"
    repository.files["../../elsewhere"] = files
    code, _, err = program("models", "pull", NAME)
    assert code == 3 and "names no commit, or another one" in err[0]
    assert server.fetched() == [] and not program.cache.exists()


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("removed", "added", "words"),
    [
        (
            "model.safetensors",
            "pytorch_model.bin",
            "no .safetensors file in its repository (pickled weights are refused",
        ),
        ("model.safetensors", "tf_model.h5", "no .safetensors file in its repository"),
        (
            "config.json",
            "model.gguf",
            "no config.json in its repository, so it holds no checkpoint; download one of its GGUF files",
        ),
        ("config.json", "data.parquet", "no config.json in its repository, so it holds no checkpoint"),
        ("tokenizer.json", "tokenizer.model", "no tokenizer.json in its repository"),
        ("tokenizer.json", "vocab.json", "no tokenizer.json in its repository"),
    ],
)
def test_repositories_of_another_form_are_refused_by_their_list(
    program: Program, server: Server, files: dict[str, bytes], removed: str, added: str, words: str
) -> None:
    server.add(NAME, {name: data for name, data in files.items() if name != removed} | {added: b"x" * 1000})
    code, out, err = program("models", "pull", NAME)
    assert (code, out, len(err)) == (3, "", 1)
    assert f"model {NAME}: {words}" in err[0]
    assert server.fetched() == [] and not program.cache.exists()


def test_an_index_of_files_that_are_not_there_is_refused(
    program: Program, server: Server, files: dict[str, bytes]
) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "../../lost.safetensors"}}
    server.add(NAME, files | {"model.safetensors.index.json": json.dumps(index).encode()})
    code, _, err = program("models", "pull", NAME)
    assert code == 3 and "its index names lost.safetensors, which the repository does not have" in err[0]
    assert "model.safetensors" not in server.fetched()


def test_a_model_that_does_not_run_is_refused_before_its_weights_come(
    program: Program, server: Server, files: dict[str, bytes]
) -> None:
    server.add(NAME, {**files, "config.json": b'{"model_type": "bert"}'})
    code, _, err = program("--model", NAME, "book.txt")
    assert (code, len(err)) == (3, 1)
    assert f"model {NAME} is not downloaded: model_type 'bert' is not one the exact engine runs" in err[0]
    assert server.fetched() == ["config.json"]
    code, _, err = program("models", "pull", NAME)  # who asks for it gets it, and is told
    assert (code, len(err)) == (0, 2)
    assert "the exact engine cannot run it: model_type 'bert'" in err[1]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_gated_models_say_how_to_get_in(program: Program, server: Server, files: dict[str, bytes]) -> None:
    server.add(NAME, files).gated = True
    for arguments in (["models", "pull", NAME], ["--model", NAME, "book.txt"]):
        code, out, err = program(*arguments, HF_TOKEN=SECRET)
        assert (code, out) == (3, "")
        assert err == [
            f"llmzip: model {NAME} is gated: accept its licence at {server.address}/{NAME}, then log in with "
            "`hf auth login` or set HF_TOKEN"
        ]
    assert server.tokens == {f"Bearer {SECRET}"}
    code, _, err = program("models", "pull", "-vv", "--debug", NAME, HF_TOKEN=SECRET)
    assert code == 3 and any("Traceback" in line for line in err)
    assert not any(SECRET in line for line in err)


def test_unknown_names_and_revisions(program: Program, server: Server, files: dict[str, bytes]) -> None:
    server.add(NAME, files)
    code, out, err = program("models", "pull", "nobody/nothing")
    assert (code, out) == (3, "")
    assert err == [
        f"llmzip: model nobody/nothing: there is no {server.address}/nobody/nothing, or it is private; check the name, "
        "or log in with `hf auth login` or set HF_TOKEN"
    ]
    for revision, hint in (("v9", ""), (FIRST[:12], "; a commit has 40 digits")):
        code, out, err = program("models", "pull", f"{NAME}@{revision}")
        assert (code, out) == (3, "")
        text = f"{NAME}@{revision}: {server.address}/{NAME} has no branch, tag or commit of this name{hint}"
        assert err == [f"llmzip: model {text}"]


def test_no_network(program: Program) -> None:
    for arguments in (["models", "pull", NAME], ["-m", NAME, "book.txt"]):
        code, out, err = program(*arguments, HF_ENDPOINT="http://127.0.0.1:1")
        assert (code, out, len(err)) == (3, "", 1)
        assert f"model {NAME} cannot be downloaded from http://127.0.0.1:1: " in err[0]
        assert "refused" in err[0]


def test_a_full_disk(program: Program, server: Server, files: dict[str, bytes]) -> None:
    server.add(NAME, files)
    done = subprocess.run(
        [sys.executable, "-m", "llmzip", "models", "pull", NAME],
        cwd=program.folder,
        env=program.environment,
        capture_output=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )
    err = done.stderr.decode().splitlines()
    assert (done.returncode, len(err)) == (3, 2)
    assert f"llmzip: model {NAME} cannot be" in err[1] and "File too large" in err[1]


def test_a_failed_download_is_completed_by_the_next(program: Program, server: Server, files: dict[str, bytes]) -> None:
    repository = server.add(NAME, files)
    repository.fails = "model.safetensors"
    code, out, err = program("models", "pull", NAME)
    assert (code, out, len(err)) == (3, "", 2)
    assert "cannot be downloaded" in err[1] and "500" in err[1]
    code, _, err = program("--offline", "-m", f"{NAME}@{FIRST}", "book.txt")
    assert code == 3
    command = f"`llmzip models pull {NAME}@{FIRST}` completes it"
    assert f"is incomplete in the Hugging Face cache (model.safetensors missing): {command}" in err[0]
    repository.fails = None
    server.requests.clear()
    assert program("models", "pull", f"{NAME}@{FIRST}")[0] == 0
    assert server.fetched() == ["model.safetensors"]
    assert program("models", "verify", f"{NAME}@{FIRST}")[0] == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_download_is_completed_by_the_next(
    program: Program, server: Server, files: dict[str, bytes], number: signal.Signals
) -> None:
    repository = server.add(NAME, files)
    repository.stalls = "model.safetensors"
    with program.start("models", "pull", NAME) as process:
        assert repository.stalled.wait(30)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == -number
    assert out == b"" and b"Traceback" not in err
    assert not (snapshot(program) / "model.safetensors").exists()
    repository.released.set()
    repository.stalls = None
    server.requests.clear()
    code, out, _ = program("models", "pull", NAME)
    assert (code, facts(out)["commit"]) == (0, FIRST)
    assert server.fetched() == ["model.safetensors"]
    assert program("models", "verify", NAME)[0] == 0


def test_a_snapshot_that_another_program_began_is_completed_at_its_commit(
    program: Program, server: Server, files: dict[str, bytes], other_files: dict[str, bytes]
) -> None:
    fill(program.cache, NAME, FIRST, {"config.json": files["config.json"]})
    repository = server.add(NAME, files)
    repository.files[SECOND] = other_files
    repository.commits["main"] = SECOND
    code, out, _ = program("models", "list")
    assert code == 0 and NAME not in out
    assert program("-m", NAME, "noise.bin")[0] == 0
    assert sorted(server.fetched()) == ["model.safetensors", "tokenizer.json"]
    assert (snapshot(program) / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_damaged_file_is_fetched_anew_as_verify_says(
    program: Program, server: Server, files: dict[str, bytes]
) -> None:
    server.add(NAME, files)
    assert program("models", "pull", NAME)[0] == 0
    (snapshot(program) / "model.safetensors").resolve().write_bytes(b"damage")
    code, _, err = program("models", "verify", NAME)
    told = re.search(r"remove (\S+), then `llmzip (models pull \S+)`", err[0])
    assert code == 3 and told is not None
    Path(told[1]).unlink()
    assert program(*told[2].split())[0] == 0
    assert program("models", "verify", NAME)[0] == 0
