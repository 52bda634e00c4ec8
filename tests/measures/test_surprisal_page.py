"""The page of surprisal: it holds any text unchanged, runs nothing but its own script, and needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from llmzip.measures import surprisal, surprisal_page, surprisal_style
from llmzip.measures.scoring import Scores
from llmzip.measures.surprisal_page import Subject, page

HOSTILE = (
    b'</script><img src="x" onerror="alert(1)"><!-- </p></i></style> &lt; &amp;amp; \' " `${1}` ]]> <u>41</u><s></s>'
)
TEXTS = {
    "plain": b"one line",
    "lines": b"\n\nfirst\n\tsecond\n\n\nlast\n",
    "hostile": HOSTILE + b"\n" + HOSTILE,
    "scripts": "Größe 東京 हिन्दी العربية 👩‍👩‍👧 a\u0301\n".encode() * 3,
    "unseen": "a\u00a0\u3000b\u00ad\u200e\u202e\u2028\ufeff\ufffe\U000e0001\x7f\x85\r\n\r\x00\x1b[31m".encode(),
    "odd": b"\xff\xfe\xed\xa0\x80 a\xe6\x9d b\xc0\xaf",
    "bytes": bytes(range(256)) * 2,
    "noise": random.Random(5).randbytes(3000),
}


class Reader(HTMLParser):
    """A parser that collects the text of the page's rows and all of its tags."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.tags = b"", []
        self.rows: list[dict[str, Any]] = []
        self.parts: dict[str, str] = {}
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("meta", "path"):
            return
        self._open.append(tag)
        if tag == "div" and dict(attrs).get("class") == "row":
            self.rows.append({**dict(attrs), "cells": [], "margin": []})
        elif tag == "i":
            self.rows[-1]["cells"].append([dict(attrs)["class"], b""])

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path"):
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if "i" in self._open:
            raw = bytes.fromhex(data) if inside == "u" else data.encode()
            self.text += raw
            self.rows[-1]["cells"][-1][1] += raw
        elif inside == "b":
            self.rows[-1]["margin"].append(data)
        else:
            assert "p" not in self._open or "main" not in self._open
            self.parts[inside] = self.parts.get(inside, "") + data


def subject(data: bytes, **other: Any) -> Subject:
    try:
        characters: int | None = len(data.decode())
    except UnicodeDecodeError:
        characters = None
    facts = {"name": "tide.txt", "model": "small", "vocabulary": VOCABULARY, "characters": characters}
    return Subject(**(facts | {"coded_bits": 80.0, "context": "1,024"} | other))


VOCABULARY = [b"", HOSTILE, b"\n\n", b" \t\r", b"\xff", "東".encode(), b"x" * 200, *(bytes([n]) for n in range(256))]


def scored(data: bytes, seed: int = 1) -> tuple[surprisal.Units, Scores]:
    chance = np.random.default_rng(seed)
    sizes = []
    while sum(sizes) < len(data):
        sizes.append(min(int(chance.integers(1, 6)), len(data) - sum(sizes)))
    count = len(sizes)
    bits = chance.exponential(5, count)
    scores = Scores(
        chance.integers(0, len(VOCABULARY), count),
        bits,
        bits,
        chance.integers(0, 300, count).astype(np.int32),
        chance.integers(0, len(VOCABULARY), (count, 5)).astype(np.int32),
        chance.exponential(5, (count, 5)),
        1024,
        512,
    )
    return surprisal.units_of(data, np.array(sizes), bits), scores


def read(data: bytes, **other: Any) -> tuple[Reader, str]:
    units, scores = scored(data)
    html = b"".join(page(subject(data, **other), units, scores)).decode()
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader, html


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_is_that_of_the_page(name: str) -> None:
    data = TEXTS[name]
    reader, html = read(data)
    assert reader.text == data
    # What HTML or a terminal would change or obey is nowhere in the file.
    unseen = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe]"
    assert not re.search(unseen, html)
    units, _ = scored(data)
    lines = surprisal.lines_of(units)
    assert len(reader.rows) == len(lines.ends)
    for row, begin, end, bits in zip(
        reader.rows, lines.begins.tolist(), lines.ends.tolist(), lines.bits.tolist(), strict=True
    ):
        assert b"".join(text for _, text in row["cells"]) == data[begin:end] and int(row["data-b"]) == begin
        assert len(row["margin"]) == 1 or float(row["margin"][1]) == pytest.approx(bits, abs=0.051)
        first = int(row["data-u"])
        assert units.begins[first] <= begin < units.ends[first]
        for place, (colour, text) in enumerate(row["cells"]):
            unit = first + place
            level = sum(units.bits[unit] >= edge for edge in surprisal_style.LEVELS)
            assert colour == f"c{level}" and text in data[units.begins[unit] : units.ends[unit]]


@pytest.mark.parametrize("name", ["plain", "hostile", "noise"])
def test_there_are_no_other_scripts_and_no_network(name: str) -> None:
    reader, html = read(TEXTS[name], name=HOSTILE.decode() + "\udcff\u202e", model="<b onclick=alert(1)>\x1b")
    found = {tag for tag, _ in reader.tags}
    assert not found - {
        "html", "head", "meta", "title", "style", "script", "body", "header", "h1", "p", "dl", "div", "dt", "dd",
        "small", "figure", "figcaption", "svg", "path", "sup", "ul", "li", "main", "span", "b", "i", "s", "u", "footer",
    }  # fmt: skip
    for _, attributes in reader.tags:
        assert not [attribute for attribute in attributes if attribute.startswith("on")]
        assert not attributes.keys() & {"src", "href", "style", "srcdoc", "action", "data", "background"}
    scripts = [attributes for tag, attributes in reader.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    for known in (surprisal_style.style(), surprisal_style.script()):
        assert "http" not in known and "src=" not in known and "url(" not in known and "import" not in known
        assert html.count(known) == 1
    policy = next(a["content"] for _, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(surprisal_style.script().encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in html.replace("http-equiv", "") and html.index("http-equiv") < html.index("<title>")


def test_a_page_of_harmless_text_has_no_addresses() -> None:
    _, html = read(TEXTS["lines"])
    assert html.count("http") == html.count("http-equiv") == 1 and "://" not in html
    assert "src=" not in html and "@import" not in html and "url(" not in html


def column(value: list[Any]) -> list[int]:
    width, text = value
    found: list[int] = np.frombuffer(base64.b64decode(text), dtype=f"<u{width}").tolist()
    return found


@pytest.mark.parametrize("name", ["hostile", "noise"])
def test_what_is_shown_of_tokens(name: str) -> None:
    data = TEXTS[name]
    units, scores = scored(data)
    _, html = read(data)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None and not set("<>&") & set(found[1])
    facts = json.loads(found[1])
    assert (facts["vocabulary"], facts["alternatives"]) == (len(VOCABULARY), 5)
    assert column(facts["sizes"]) == np.diff(units.token_ends, prepend=0).tolist()
    assert sum(column(facts["sizes"])) == len(scores.tokens)
    scale = facts["scale"]
    assert np.allclose(np.array(column(facts["bits"])) / scale, scores.model_bits, atol=0.6 / scale)
    assert np.allclose(np.array(column(facts["likelyBits"])) / scale, scores.alternative_bits.ravel(), atol=0.6 / scale)
    assert column(facts["ranks"]) == scores.ranks.tolist()
    words = facts["words"]
    for places, ids in ((facts["ids"], scores.tokens), (facts["likely"], scores.alternatives.ravel())):
        assert [words[place] for place in column(places)] == [surprisal_page._word(VOCABULARY[i]) for i in ids.tolist()]
    signs = {surprisal_page._word(entry) for entry in VOCABULARY[:7]}
    assert {"⟨⟩", "↵↵", "␣→⟨0D⟩", "⟨FF⟩", "東", "x" * 60 + "…"} < signs


def test_totals() -> None:
    data = "zwölf Boxkämpfer\n".encode()
    units, scores = scored(data)
    reader, html = read(data)
    bits = units.bits.sum()
    assert f"<dd>{bits / len(data):.4f}</dd>" in html and f"<dd>{bits / 17:.4f}</dd>" in html
    assert f"<dd>{len(scores.tokens):,}</dd>" in html and "10 bytes, 52.6%" in html
    assert reader.parts["h1"] == "tide.txt" and "Model small, context 1,024" in reader.parts["p"]
    assert "bits per character</dt><dd>\u2013</dd>" in read(b"\xff")[1]


def test_of_a_long_text_the_page_shows_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    data = "日本語のテキスト。\n".encode() * 100
    for name, most in (("MAX_BYTES", 500), ("MAX_TOKENS", 150)):
        with monkeypatch.context() as patch:
            patch.setattr(surprisal_page, name, most)
            reader, html = read(data)
        assert data.startswith(reader.text) and 400 < len(reader.text) <= 600
        assert reader.text.decode()
        assert f"the first {len(reader.text)} of {len(data):,} bytes" in html and f'data-bytes="{len(data)}"' in html
    assert "The text below is the first" not in read(data)[1]


def test_a_long_line_is_several_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surprisal_page, "_ROW_UNITS", 10)
    data = b"word " * 60 + b"\nend"
    reader, _ = read(data)
    assert reader.text == data and len(reader.rows) > 5 and max(len(row["cells"]) for row in reader.rows) == 10
    assert [row["margin"][0] for row in reader.rows if row["margin"]] == ["1", "2"]
    units, _ = scored(data)
    for row in reader.rows:
        assert units.begins[int(row["data-u"])] <= int(row["data-b"]) < units.ends[int(row["data-u"])]


def test_the_page_stays_small() -> None:
    data = (b"It was the best of times, it was the worst of times,\n" * 2000)[:100_000]
    units, scores = scored(data)
    size = sum(map(len, page(subject(data), units, scores)))
    assert len(scores.tokens) > 30_000 and size < 3_000_000


def test_the_style_has_a_rule_for_each_colour_and_each_width_of_a_bar() -> None:
    style = surprisal_style.style()
    assert "/*" not in style
    for number in range(len(surprisal_style.LEVELS) + 1):
        assert style.count(f".c{number}{{") == 2  # a light screen's and a dark one's
    assert all(style.count(f".w{width}{{") == 1 for width in range(surprisal_style.BAR_STEPS + 1))
