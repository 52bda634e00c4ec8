"""Tests the corpora folder and its two scripts; must not import llmzip."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import http.server
import importlib.util
import io
import json
import shutil
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

CORPORA = Path(__file__).resolve().parents[2] / "corpora"
FRUIT = {"apple": b"red or green\n" * 40, "pear": b"\x00\x01\xff" * 100}


def load(name: str):
    """Imports a script of the folder, which is not a package."""
    spec = importlib.util.spec_from_file_location(f"corpora_{name}", CORPORA / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load("generate")
fetch = load("fetch")


# --- the files ---------------------------------------------------------------


def manifest_rows() -> list[dict[str, str]]:
    lines = (CORPORA / "MANIFEST.tsv").read_text("utf-8").splitlines()
    columns = lines[0].split("\t")
    assert columns == ["name", "bytes", "sha256", "kind", "language", "origin", "licence"]
    return [dict(zip(columns, line.split("\t"), strict=True)) for line in lines[1:]]


@pytest.mark.parametrize("row", manifest_rows(), ids=lambda row: row["name"])
def test_manifest_describes_file(row):
    data = (CORPORA / row["name"]).read_bytes()
    assert len(data) == int(row["bytes"])
    assert hashlib.sha256(data).hexdigest() == row["sha256"]
    assert row["licence"] == "MIT"
    assert row["origin"] in ("written for llmzip", "generate.py")


def test_manifest_lists_every_file():
    on_disk = {path.name for path in CORPORA.iterdir() if path.is_file()}
    assert {row["name"] for row in manifest_rows()} == on_disk - generate.NOT_CORPUS


def test_readme_names_every_language_and_file():
    readme = (CORPORA / "README.md").read_text("utf-8")
    for row in manifest_rows():
        short = row["name"].removeprefix("prose").removesuffix(".txt")
        assert row["name"] in readme or f"`{short}`" in readme


def test_git_leaves_the_bytes_alone():
    assert (CORPORA / ".gitattributes").read_text("utf-8") == "* -text\n"


def test_crlf_text_has_no_bare_line_end():
    data = (CORPORA / "crlf.txt").read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r") > 20


@pytest.mark.parametrize("name", ["latin1.txt", "bytes.bin"])
def test_not_utf8(name):
    with pytest.raises(UnicodeDecodeError):
        (CORPORA / name).read_bytes().decode("utf-8")


def test_binary_size_and_runs():
    data = (CORPORA / "bytes.bin").read_bytes()
    assert len(data) == 4096
    assert bytes(512) in data


def test_json_is_valid_and_nested():
    document = json.loads((CORPORA / "records.json").read_bytes())
    assert any(thing["repairs"] for thing in document["objects"])
    assert any(thing["donor"] is None for thing in document["objects"])


def test_csv_rows_are_equally_long():
    text = (CORPORA / "table.csv").read_text("utf-8")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len(rows) > 60
    assert {len(row) for row in rows} == {12}
    fields = [field for row in rows for field in row]
    assert "" in fields
    assert any("\n" in field for field in fields)
    assert any('"' in field for field in fields)


def test_log_is_in_order():
    lines = (CORPORA / "service.log").read_text("utf-8").splitlines()
    stamps = [line[:24] for line in lines if line.startswith("2034-")]
    assert stamps == sorted(stamps)
    assert "Traceback (most recent call last):" in lines


def test_python_sample_runs(capsys):
    source = (CORPORA / "code-python.txt").read_text("utf-8")
    # Its dataclasses look their module up by name, so it needs a real one.
    exec(compile(source, "code-python.txt", "exec"), {"__name__": "__main__"})
    assert "division by zero" in capsys.readouterr().out


# --- generate.py -------------------------------------------------------------


@pytest.fixture
def copy_of_corpora(tmp_path):
    target = tmp_path / "corpora"
    shutil.copytree(CORPORA, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_check_passes():
    assert generate.main(["--check"]) == 0


def test_generators_are_repeatable():
    for name, generator in generate.GENERATORS.items():
        assert generator() == generator(), name


@pytest.mark.parametrize("name", ["table.csv", "prose-en.txt", "bytes.bin", "MANIFEST.tsv"])
def test_check_names_a_changed_file(copy_of_corpora, name, capsys):
    path = copy_of_corpora / name
    path.write_bytes(path.read_bytes() + b"x\n")
    assert generate.main(["--check"], copy_of_corpora) == 1
    assert f"corpora: {name}:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["service.log", "prose-el.txt", "MANIFEST.tsv"])
def test_check_names_a_missing_file(copy_of_corpora, name, capsys):
    (copy_of_corpora / name).unlink()
    assert generate.main(["--check"], copy_of_corpora) == 1
    assert f"corpora: {name}: missing" in capsys.readouterr().err


def test_check_names_a_stranger(copy_of_corpora, capsys):
    (copy_of_corpora / "borrowed.txt").write_bytes(b"from somewhere\n")
    assert generate.main(["--check"], copy_of_corpora) == 1
    assert "corpora: borrowed.txt:" in capsys.readouterr().err


def test_check_refuses_carriage_returns_in_written_texts(copy_of_corpora, capsys):
    path = copy_of_corpora / "prose-de.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert generate.main(["--check"], copy_of_corpora) == 1
    assert "prose-de.txt: has a carriage return" in capsys.readouterr().err


def test_writing_repairs_generated_files(copy_of_corpora):
    (copy_of_corpora / "records.json").write_bytes(b"{}")
    assert generate.main([], copy_of_corpora) == 0
    for path in copy_of_corpora.iterdir():
        assert path.read_bytes() == (CORPORA / path.name).read_bytes()


# --- fetch.py ----------------------------------------------------------------


class Server:
    """Serves bytes by path on the loopback interface and counts requests."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.promised: dict[str, int] = {}
        self.requests: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.path)
                body = outer.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                length = outer.promised.get(self.path, len(body))
                self.send_header("Content-Length", str(length))
                self.end_headers()
                # The client hangs up on purpose when it has had enough.
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    # A proxy set in the environment would otherwise be asked for 127.0.0.1.
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.close()


def tar_of(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return buffer.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


PACK = {"tar.gz": tar_of, "zip": zip_of}


def item(name: str, data: bytes, sha256: str | None = ""):
    """Describes the data, by default with its true hash."""
    if sha256 == "":
        sha256 = hashlib.sha256(data).hexdigest()
    return fetch.Item(name, len(data), sha256)


def table_for(server: Server, name: str = "fruit.tar.gz", **changed):
    items = tuple(changed.get(n) or item(n, data) for n, data in FRUIT.items())
    return {"fruit": fetch.Corpus(f"{server.url}/{name}", items)}


def contents(folder: Path) -> dict[str, bytes]:
    """Returns everything below a folder, temporary leavings included."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


ALL_FRUIT = {f"fruit/{name}": data for name, data in FRUIT.items()}


@pytest.mark.parametrize("prefix", ["", "./", "basket/deep/"])
def test_fetches_tar(server, tmp_path, capsys, prefix):
    server.files["/fruit.tar.gz"] = tar_of({prefix + n: d for n, d in FRUIT.items()})
    assert fetch.main([str(tmp_path)], table_for(server)) == 0
    assert contents(tmp_path) == ALL_FRUIT
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["fruit/apple", "fruit/pear"]
    assert all(line.endswith("  ok") for line in lines)


def test_fetches_zip(server, tmp_path):
    server.files["/fruit.zip"] = zip_of(FRUIT)
    assert fetch.main([str(tmp_path)], table_for(server, "fruit.zip")) == 0
    assert contents(tmp_path) == ALL_FRUIT


def test_skips_what_is_there(server, tmp_path, capsys):
    server.files["/fruit.tar.gz"] = tar_of(FRUIT)
    assert fetch.main([str(tmp_path)], table_for(server)) == 0
    assert fetch.main([str(tmp_path)], table_for(server)) == 0
    assert len(server.requests) == 1
    assert capsys.readouterr().out.count("already there") == 2


def test_replaces_what_is_wrong(server, tmp_path):
    server.files["/fruit.tar.gz"] = tar_of(FRUIT)
    (tmp_path / "fruit").mkdir()
    (tmp_path / "fruit" / "apple").write_bytes(b"X" * len(FRUIT["apple"]))
    assert fetch.main([str(tmp_path)], table_for(server)) == 0
    assert contents(tmp_path) == ALL_FRUIT


def test_base_url_replaces_the_folder(server, tmp_path):
    server.files["/mirror/fruit.zip"] = zip_of(FRUIT)
    table = {"fruit": fetch.Corpus("http://unused.invalid/a/fruit.zip", table_for(server)["fruit"].items)}
    arguments = [str(tmp_path), "--base-url", f"{server.url}/mirror/"]
    assert fetch.main(arguments, table) == 0
    assert contents(tmp_path) == ALL_FRUIT


@pytest.mark.parametrize(
    "only, expected",
    [
        (["fruit"], {"fruit/apple", "fruit/pear"}),
        (["fruit/pear"], {"fruit/pear"}),
    ],
)
def test_only(server, tmp_path, only, expected):
    server.files["/fruit.tar.gz"] = tar_of(FRUIT)
    assert fetch.main([str(tmp_path), "--only", *only], table_for(server)) == 0
    assert set(contents(tmp_path)) == expected


def test_unknown_name_is_a_usage_error(server, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        fetch.main([str(tmp_path), "--only", "fruit/plum"], table_for(server))
    assert stopped.value.code == 2
    assert "fruit/plum" in capsys.readouterr().err


def test_without_hash_only_the_size_counts(server, tmp_path, capsys):
    other = bytes(len(FRUIT["pear"]))
    server.files["/fruit.tar.gz"] = tar_of({**FRUIT, "pear": other})
    table = table_for(server, pear=item("pear", FRUIT["pear"], None))
    assert fetch.main([str(tmp_path)], table) == 0
    assert "ok (size only)" in capsys.readouterr().out
    assert contents(tmp_path)["fruit/pear"] == other


def test_refuses_wrong_hash_and_keeps_the_rest(server, tmp_path, capsys):
    changed = FRUIT["apple"].replace(b"red", b"rot")
    server.files["/fruit.tar.gz"] = tar_of({**FRUIT, "apple": changed})
    assert fetch.main([str(tmp_path)], table_for(server)) == 1
    assert contents(tmp_path) == {"fruit/pear": FRUIT["pear"]}
    assert "FAILED: has SHA-256" in capsys.readouterr().out


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"!"])
def test_refuses_wrong_size(server, tmp_path, change):
    server.files["/fruit.zip"] = zip_of({**FRUIT, "pear": change(FRUIT["pear"])})
    assert fetch.main([str(tmp_path)], table_for(server, "fruit.zip")) == 1
    assert contents(tmp_path) == {"fruit/apple": FRUIT["apple"]}


def test_reports_a_member_that_is_missing(server, tmp_path, capsys):
    server.files["/fruit.tar.gz"] = tar_of({"apple": FRUIT["apple"]})
    assert fetch.main([str(tmp_path)], table_for(server)) == 1
    assert "FAILED: not in the archive" in capsys.readouterr().out


HOSTILE = ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("suffix", PACK)
def test_refuses_path_traversal(server, tmp_path, capsys, name, suffix):
    server.files[f"/fruit.{suffix}"] = PACK[suffix]({**FRUIT, name: b"gotcha"})
    folder = tmp_path / "inner" / "most"
    assert fetch.main([str(folder)], table_for(server, f"fruit.{suffix}")) == 1
    assert contents(tmp_path) == {}
    assert capsys.readouterr().out.count("points outside") == 2


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_refuses_links_and_devices(server, tmp_path, kind):
    link = tarfile.TarInfo("plum")
    link.type, link.linkname = kind, "/etc/passwd"
    server.files["/fruit.tar.gz"] = tar_of(FRUIT, link)
    assert fetch.main([str(tmp_path)], table_for(server)) == 1
    assert contents(tmp_path) == {}


def test_refuses_two_members_of_one_name(server, tmp_path):
    server.files["/fruit.tar.gz"] = tar_of({**FRUIT, "other/apple": b"which?"})
    assert fetch.main([str(tmp_path)], table_for(server)) == 1
    assert contents(tmp_path) == {}


def test_refuses_a_decompression_bomb(server, tmp_path, capsys):
    server.files["/fruit.tar.gz"] = gzip.compress(bytes(8 << 20))
    assert fetch.main([str(tmp_path)], table_for(server)) == 1
    assert contents(tmp_path) == {}
    assert "longer than" in capsys.readouterr().out


def test_refuses_a_download_without_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "SLACK", 100)
    server.files["/fruit.zip"] = bytes(1 << 20)
    assert fetch.main([str(tmp_path)], table_for(server, "fruit.zip")) == 1
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("suffix", PACK)
def test_a_download_cut_short_leaves_nothing(server, tmp_path, capsys, suffix):
    whole = PACK[suffix](FRUIT)
    path = f"/fruit.{suffix}"
    server.files[path], server.promised[path] = whole[: len(whole) // 2], len(whole)
    assert fetch.main([str(tmp_path)], table_for(server, f"fruit.{suffix}")) == 1
    assert list(tmp_path.iterdir()) == []
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", PACK)
def test_a_damaged_archive_leaves_nothing(server, tmp_path, suffix):
    whole = PACK[suffix](FRUIT)
    server.files[f"/fruit.{suffix}"] = whole[: len(whole) // 2]
    assert fetch.main([str(tmp_path)], table_for(server, f"fruit.{suffix}")) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_archive_is_reported_per_file(server, tmp_path, capsys):
    assert fetch.main([str(tmp_path)], table_for(server)) == 1
    assert capsys.readouterr().out.count("FAILED: cannot download") == 2
    assert list(tmp_path.iterdir()) == []


def test_failure_does_not_touch_an_older_file(server, tmp_path):
    (tmp_path / "fruit").mkdir()
    (tmp_path / "fruit" / "apple").write_bytes(b"an older apple")
    server.files["/fruit.tar.gz"] = tar_of({**FRUIT, "apple": b"rotten"})
    assert fetch.main([str(tmp_path), "--only", "fruit/apple"], table_for(server)) == 1
    assert contents(tmp_path) == {"fruit/apple": b"an older apple"}


def test_refuses_addresses_that_are_not_http(server, tmp_path):
    (tmp_path / "fruit.tar.gz").write_bytes(tar_of(FRUIT))
    arguments = [str(tmp_path / "out"), "--base-url", tmp_path.as_uri()]
    assert fetch.main(arguments, table_for(server)) == 1


def test_list_needs_no_folder(capsys):
    assert fetch.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert "canterbury/alice29.txt" in out
    assert "size only" in out


def test_built_in_table_is_well_formed():
    hashes = []
    for name, entry in fetch.TABLE.items():
        assert entry.url.endswith((".zip", ".tar.gz")), name
        names = [thing.name for thing in entry.items]
        assert len(set(names)) == len(names)
        assert not any("/" in n or n.startswith(".") for n in names)
        assert all(thing.size > 0 for thing in entry.items)
        hashes += [thing.sha256 for thing in entry.items if thing.sha256]
    assert len(set(hashes)) == len(hashes)
    assert all(len(h) == 64 and set(h) <= set("0123456789abcdef") for h in hashes)
