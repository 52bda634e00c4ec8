"""Writes the generated corpus files and MANIFEST.tsv. Must not import llmzip.

The bytes must be the same with every supported Python, so random numbers come
from randrange alone and nothing is formatted by modules whose output has
changed between versions (csv, for one).

Usage:
    python corpora/generate.py           write the files
    python corpora/generate.py --check   exit 1 and name the files that differ
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
MANIFEST = "MANIFEST.tsv"
COLUMNS = ("name", "bytes", "sha256", "kind", "language", "origin", "licence")
BY_HAND = "written for llmzip"
BY_SCRIPT = "generate.py"
LICENCE = "MIT"
LOG_SCRIPTS = {"make_logs.py", "log_words.py", "log_system.py", "log_requests.py", "log_visits.py"}
NOT_CORPUS = {".gitattributes", "README.md", "generate.py", "fetch.py", MANIFEST} | LOG_SCRIPTS


class Entry(NamedTuple):
    """The facts about a file in the manifest, besides its size and hash."""

    kind: str
    language: str
    origin: str


CATALOGUE = {
    "bytes.bin": Entry("binary", "-", BY_SCRIPT),
    "code-c.txt": Entry("code", "c", BY_HAND),
    "code-python.txt": Entry("code", "python", BY_HAND),
    "crlf.txt": Entry("prose, CRLF", "en", BY_SCRIPT),
    "latin1.txt": Entry("prose, ISO-8859-1", "mul", BY_SCRIPT),
    "notes.md": Entry("markdown", "en", BY_HAND),
    "page.html": Entry("html", "en", BY_HAND),
    "prose-ar.txt": Entry("prose", "ar", BY_HAND),
    "prose-de.txt": Entry("prose", "de", BY_HAND),
    "prose-el.txt": Entry("prose", "el", BY_HAND),
    "prose-en.txt": Entry("prose", "en", BY_HAND),
    "prose-es.txt": Entry("prose", "es", BY_HAND),
    "prose-fr.txt": Entry("prose", "fr", BY_HAND),
    "prose-hi.txt": Entry("prose", "hi", BY_HAND),
    "prose-ja.txt": Entry("prose", "ja", BY_HAND),
    "prose-ko.txt": Entry("prose", "ko", BY_HAND),
    "prose-ru.txt": Entry("prose", "ru", BY_HAND),
    "prose-zh.txt": Entry("prose", "zh", BY_HAND),
    "records.json": Entry("json", "en", BY_SCRIPT),
    "service.log": Entry("log", "en", BY_SCRIPT),
    "table.csv": Entry("csv", "en", BY_SCRIPT),
    "technical-en.txt": Entry("article", "en", BY_HAND),
}


def pick(rng: random.Random, options: Sequence):
    """Returns one of the options; random.choice promises no fixed sequence."""
    return options[rng.randrange(len(options))]


def chance(rng: random.Random, percent: int) -> bool:
    return rng.randrange(100) < percent


# --- records.json: the inventory of a museum of repaired things --------------

OBJECTS = (
    ("Tea plate with rivets", ("porcelain", "brass"), "ceramics"),
    ("Work jacket, elbows replaced twice", ("cotton", "wool"), "textiles"),
    ("Three-legged stool, now four", ("beech",), "furniture"),
    ("Umbrella with borrowed rib", ("silk", "steel", "cane"), "umbrellas"),
    ("Child's sled", ("ash", "iron"), "outdoor"),
    ("Colander patched with a coin", ("enamel", "copper"), "kitchen"),
    ("Spectacles, one arm from another pair", ("horn", "glass"), "personal"),
    ("Atlas rebacked in sailcloth", ("paper", "linen"), "books"),
    ("Mantel clock running on one hand", ("walnut", "brass"), "clocks"),
    ("Fishing net, corner re-knotted", ("hemp",), "outdoor"),
    ("Violin with cleated belly", ("spruce", "maple"), "instruments"),
    ("Sock, of which the heel is the newest part", ("wool",), "textiles"),
    ('Jug, called "the general"', ("stoneware", "lead"), "ceramics"),
    ("Typewriter lacking the letter q", ("steel", "rubber"), "office"),
    ("Bicycle lamp", ("tin", "glass"), "outdoor"),
)
METHODS = (
    "riveted",
    "darned",
    "re-glued with hide glue",
    "soldered",
    "patched",
    "splinted",
    "re-tinned",
    "stitched",
    "pinned with bamboo",
    "re-felted",
)
MENDERS = (
    "Ilse Krämer",
    "T. Achterberg",
    "Jún Þórsdóttir",
    "Mme Aubry",
    "unknown",
    "Pavel Ždánský",
    "the owner",
    "S. & R. Oduya",
    "Niccolò Feà",
)
REMARKS = (
    "Handle with both hands.",
    'The label on the back reads: "mended, not sold".',
    "Smells faintly of paraffin.\nDo not store near 2031-4.",
    "Repair is stronger than the object.",
    "Two repairs by different hands; the older one is better.",
    "Found inside: one button, C:\\ scratched into the rim.",
)


def day(rng: random.Random, first_year: int, last_year: int) -> str:
    """Returns an ISO date in these years."""
    start = date(first_year, 1, 1).toordinal()
    stop = date(last_year, 12, 31).toordinal() + 1
    return date.fromordinal(rng.randrange(start, stop)).isoformat()


def repair(rng: random.Random, year: int) -> dict:
    cost = rng.randrange(40, 3900)
    return {
        "date": day(rng, year, year),
        "method": pick(rng, METHODS),
        "by": pick(rng, MENDERS),
        "minutes": 5 * rng.randrange(2, 70),
        "cost": None if chance(rng, 35) else f"{cost // 100}.{cost % 100:02d}",
    }


def museum_object(rng: random.Random, number: int) -> dict:
    title, materials, category = OBJECTS[number % len(OBJECTS)]
    made = rng.randrange(1790, 1975)
    years = sorted(rng.randrange(made + 4, 2024) for _ in range(rng.randrange(1, 4)))
    return {
        "id": f"{2000 + rng.randrange(12, 33)}-{number + 1}",
        "title": title,
        "category": category,
        "made": {"year": made, "circa": chance(rng, 60)},
        "materials": list(materials),
        "millimetres": [rng.randrange(40, 900) for _ in range(3)],
        "grams": rng.randrange(30, 9000),
        # Tenths are given as n / 10, whose shortest form is the same anywhere.
        "humidityPercent": rng.randrange(380, 620) / 10,
        "donor": None if chance(rng, 25) else pick(rng, MENDERS),
        "onDisplay": chance(rng, 55),
        "room": rng.randrange(1, 10),
        "repairs": [repair(rng, year) for year in years],
        "remarks": pick(rng, REMARKS) if chance(rng, 45) else "",
    }


def records_json() -> bytes:
    rng = random.Random(1701)
    document = {
        "museum": "The Museum of Small Repairs",
        "schema": 3,
        "exported": "2034-05-12T08:15:00Z",
        "objects": [museum_object(rng, number) for number in range(14)],
    }
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode("utf-8")


# --- table.csv: accessions of a seed bank ------------------------------------

CROPS = (
    # Species, cultivars, and the range of one seed's mass in tenths of a milligram.
    ("Phaseolus vulgaris", ("Grey Widow", "Harbour Runner", "Tolland's Speckled"), (2100, 6200)),
    ("Solanum lycopersicum", ("Ox of Marle", "Late Amber", "Sister Bede"), (21, 42)),
    ("Secale cereale", ("Upper Gate", "Long Straw"), (240, 410)),
    ("Pisum sativum", ("Half-a-Crown", "Snow Hedge", 'Blue "Parson"'), (1500, 3400)),
    ("Daucus carota", ("Iron Finger", "Saint Orrin, early"), (9, 18)),
    ("Lactuca sativa", ("Frogmorton", "Winter Lace"), (8, 15)),
    ("Cucurbita pepo", ("Bell Founder", "Drum, small"), (900, 2900)),
)
SEED_REMARKS = (
    "",
    "",
    "",
    "",
    "",
    "sound, well dried",
    "weevil; treated, 2 h at 55 °C",
    "label torn, cultivar uncertain",
    'said to be "older than the church"',
    "mixed with oats, sorted by hand",
    "first line of the envelope: keep cool\nsecond line: keep from Aunt",
    "duplicate of an earlier accession?",
)
COLLECTORS = ("Brandt, M.", "Osei, K.", "Lindqvist, A.", "de Wael, P.", "")


def csv_field(text: str) -> str:
    """Quotes a field if RFC 4180 requires it."""
    if any(mark in text for mark in '",\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def fixed(value: int, places: int) -> str:
    """Writes an integer count of 10**-places as a decimal number."""
    sign, digits = ("-" if value < 0 else ""), str(abs(value)).zfill(places + 1)
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def accession(rng: random.Random, number: int) -> list[str]:
    species, cultivars, mass = pick(rng, CROPS)
    seeds = rng.randrange(40, 4000)
    tested = chance(rng, 80)
    placed = chance(rng, 85)
    return [
        f"SB-{number:05d}",
        species,
        pick(rng, cultivars) if chance(rng, 92) else "",
        day(rng, 2011, 2033),
        fixed(rng.randrange(4_610_000, 4_730_000), 5) if placed else "",
        fixed(rng.randrange(-41_000, 980_000), 5) if placed else "",
        str(rng.randrange(3, 1900)) if placed else "",
        str(seeds),
        fixed(seeds * rng.randrange(*mass), 1),
        str(rng.randrange(31, 101)) if tested else "",
        pick(rng, COLLECTORS),
        pick(rng, SEED_REMARKS),
    ]


def table_csv() -> bytes:
    rng = random.Random(1865)
    header = (
        "accession",
        "species",
        "cultivar",
        "collected",
        "latitude",
        "longitude",
        "altitude_m",
        "seeds",
        "mass_mg",
        "germination_pct",
        "collector",
        "remarks",
    )
    rows, number = [list(header)], 300
    for _ in range(88):
        number += 1 + rng.randrange(4)
        rows.append(accession(rng, number))
    lines = (",".join(csv_field(text) for text in row) for row in rows)
    return ("\n".join(lines) + "\n").encode("utf-8")


# --- service.log: a morning at a ferry company's booking service -------------

PORTS = ("SKV", "HLM", "ORN", "TYR", "VST")
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) FerryKiosk/4.2",
    "okhttp/4.12.0",
    "tills/2.0 (quay 3)",
    "curl/8.6.0",
)
TRACEBACK = (
    "Traceback (most recent call last):",
    '  File "/srv/ledger/settle.py", line 88, in run_once',
    "    self.settle(job)",
    '  File "/srv/ledger/settle.py", line 131, in settle',
    "    with self.store.lock(job.account, timeout=LOCK_SECONDS) as row:",
    '  File "/usr/lib/python3.12/contextlib.py", line 137, in __enter__',
    "    return next(self.gen)",
    '  File "/srv/ledger/store.py", line 57, in lock',
    "    raise LockTimeout(account, waited)",
    "ledger.errors.LockTimeout: account {account}: no lock after 5.0 s",
)


class Journal:
    """A collection of log lines out of order, because they come from several processes."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lines: list[tuple[int, int, str]] = []
        self.start = datetime(2034, 5, 12, 5, 58, 41, tzinfo=timezone.utc)

    def add(self, at: int, level: str, source: str, text: str) -> None:
        """Adds an entry at this many milliseconds after the start."""
        moment = self.start + timedelta(milliseconds=at)
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % 1000:03d}Z"
        entry = f"{stamp} {level:<5} {source:<14} {text}"
        self.lines.append((at, len(self.lines), entry))

    def text(self) -> str:
        return "".join(entry + "\n" for _, _, entry in sorted(self.lines))


def request_id(rng: random.Random) -> str:
    return f"{rng.randrange(1 << 32):08x}-{rng.randrange(1 << 16):04x}"


def access(journal: Journal, at: int, ident: str, call: str, status: int) -> None:
    rng = journal.rng
    client = f"{pick(rng, ('192.0.2', '198.51.100', '203.0.113'))}.{rng.randrange(1, 255)}"
    journal.add(
        at,
        "INFO" if status < 500 else "ERROR",
        "gateway[812]",
        f'req={ident} {client} "{call}" {status} {rng.randrange(90, 5200)}B agent="{pick(rng, AGENTS)}"',
    )


def search(journal: Journal, at: int) -> None:
    rng, ident = journal.rng, request_id(journal.rng)
    origin = rng.randrange(len(PORTS))
    target = (origin + rng.randrange(1, len(PORTS))) % len(PORTS)
    route = f"{PORTS[origin]}-{PORTS[target]}"
    took = rng.randrange(3, 90)
    hit = chance(rng, 60)
    journal.add(
        at + took // 2,
        "DEBUG",
        "timetable[340]",
        f"req={ident} route={route} cache={'hit' if hit else 'miss'} sailings={rng.randrange(0, 9)}",
    )
    access(journal, at + took, ident, f"GET /v2/sailings?route={route} HTTP/1.1", 200)


def booking(journal: Journal, at: int, number: int) -> None:
    rng, ident = journal.rng, request_id(journal.rng)
    seats, cents = rng.randrange(1, 7), rng.randrange(900, 24000)
    journal.add(
        at + 4,
        "INFO",
        "bookings[355]",
        f"req={ident} hold placed booking=B{number} seats={seats} vehicle={'yes' if chance(rng, 30) else 'no'}",
    )
    if chance(rng, 12):
        journal.add(
            at + 31,
            "WARN",
            "bookings[355]",
            f"req={ident} payment declined booking=B{number} code=51, hold released",
        )
        access(journal, at + 36, ident, "POST /v2/bookings HTTP/1.1", 402)
        return
    later = at + rng.randrange(60, 400)
    journal.add(
        later,
        "INFO",
        "ledger[361]",
        f"req={ident} settled booking=B{number} amount={fixed(cents, 2)} EUR",
    )
    access(journal, later + 7, ident, "POST /v2/bookings HTTP/1.1", 201)


def lock_failure(journal: Journal, at: int, account: int) -> None:
    """Logs a settlement that waits for a lock, gives up, and succeeds on the second try."""
    ident = request_id(journal.rng)
    trace = "\n".join(TRACEBACK).format(account=account)
    journal.add(
        at,
        "WARN",
        "postgres[77]",
        f"process 4410 still waiting for ShareLock on transaction {account * 7 + 3} after 1000.214 ms",
    )
    journal.add(at + 4003, "ERROR", "ledger[361]", f"req={ident} job failed\n{trace}")
    journal.add(at + 4010, "INFO", "ledger[361]", f"req={ident} retry 1 of 3 in 2.0 s")
    journal.add(at + 6031, "INFO", "ledger[361]", f"req={ident} settled on retry account={account}")


def routine(journal: Journal, at: int, minute: int) -> None:
    """Logs the messages that machines write even if nobody buys tickets."""
    rng = journal.rng
    journal.add(
        at,
        "INFO",
        "scheduler[12]",
        f"tick minute={minute} due={rng.randrange(0, 4)} lag_ms={rng.randrange(0, 40)}",
    )
    if minute % 3 == 0:
        journal.add(
            at + 211,
            "DEBUG",
            "kernel",
            f"[{81234 + minute * 60}.{rng.randrange(1000000):06d}] eth0: "
            f"rx {rng.randrange(20000, 90000)} tx {rng.randrange(20000, 90000)}",
        )
    if minute % 5 == 1:
        journal.add(
            at + 480,
            "INFO",
            "mailer[409]",
            json.dumps(
                {
                    "event": "batch",
                    "sent": rng.randrange(4, 60),
                    "bounced": rng.randrange(0, 3),
                    "queue": "tickets",
                }
            ),
        )


def service_log() -> bytes:
    journal, at, minute = Journal(random.Random(1912)), 0, 0
    journal.add(0, "INFO", "gateway[812]", "listening on [::]:8443, 5 upstreams healthy")
    for number in range(44):
        at += journal.rng.randrange(400, 9000)
        while minute * 60_000 < at:
            routine(journal, minute * 60_000, minute)
            minute += 1
        if chance(journal.rng, 45):
            booking(journal, at, 70411 + number)
        else:
            search(journal, at)
        if number in (17, 36):
            lock_failure(journal, at + 150, 2200 + number)
    return journal.text().encode("utf-8")


# --- text whose bytes no tool may touch --------------------------------------

CRLF_TEXT = """\
To whoever finds this file,

It was typed on the old machine in the harbour office, the one with the
green screen, and that machine ends a line the way its printer did: by
sending the carriage back to the left and then rolling the paper up by one.
Two movements, two characters. The printer went to a school in 1994 and is
said to be still in use there, as a step.

The new machine does not understand this. It shows a small mark at the end
of every line and asks me, each morning, whether I should like to have them
removed. I should not. Last year somebody's helpful program removed them
from the berth list, and the harbour master's printer, which still has a
carriage and opinions, typed the whole of June on a single line, all the
way along the paper, across the roller, and a little way into the desk.

So please leave the endings as they are. They take up one byte a line, and
there are not many lines.

\tBerth\tVessel\t\tLength\tUntil
\t  4\tPatience\t11.2 m\tthe parts arrive
\t  7\tSecond Wife\t 8.9 m\tFriday
\t  9\t(kept free)\t\tfor the gulls, unofficially
\t 12\tNo Reply\t14.0 m\tthe owner is found

If the lamp on the breakwater is out, it is not broken. It is Tuesday.

Yours,
the harbour office
(knock, then wait, then knock again)
"""

LATIN1_TEXT = """\
Fünf Grüße aus einer Zeit, in der ein Zeichen noch ein Byte war.

Die Bäckerei an der Straßenecke öffnet früh. Um fünf hört man das Mühlrad,
um sechs riecht man die Brötchen, und um sieben ist für Langschläfer schon
alles zu spät. »Schöne Grüße«, sagt die Bäckerin, »und morgen ein bißchen
eher!«

À l'hôtel du Chêne, le garçon a posé près de la fenêtre une assiette fêlée
où mûrissent trois pêches. Personne n'ose y toucher : on dit qu'elles sont
réservées à un évêque, déjà très âgé, qui viendrait peut-être à Noël.

El niño preguntó cuántos años tenía la montaña. «Más que tú», contestó el
señor Núñez, «y todavía no ha aprendido a quedarse quieta». ¿Quién sabe?

O pão está na mesa, a avó não está. Deixou um bilhete: «Já volto». É curto,
mas tem a letra dela, e isso chega para três gerações.

På bryggan låg en röd åra. Ingen visste vems den var, så alla rodde litet
åt samma håll.

Prix : 3 £, soit 4 ¢ le mètre carré (± ½ %), à 20° près. © personne.
"""


def crlf_txt() -> bytes:
    return CRLF_TEXT.replace("\n", "\r\n").encode("ascii")


def latin1_txt() -> bytes:
    return LATIN1_TEXT.encode("iso-8859-1")


def noise(seed: int, count: int) -> bytes:
    """Returns bytes from a 64-bit linear congruential generator's high bits."""
    state, out = seed, bytearray()
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        out.append(state >> 56)
    return bytes(out)


def triangle_wave(count: int) -> bytes:
    """Returns 16-bit samples that rise and fall by steps of 300."""
    samples = (abs((n * 300) % 12000 - 6000) - 3000 for n in range(count))
    return b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)


def bytes_bin() -> bytes:
    """Returns 4096 bytes laid out like a small, invented binary format."""
    offsets = [64 + n * 36 + n * n % 7 for n in range(128)]
    parts = [
        b"\x89LZT\r\n\x1a\n",
        b"".join(n.to_bytes(4, "little") for n in (3, 128, 0xFFFFFFFF, 1 << 20)),
        bytes(40),
        b"".join(n.to_bytes(4, "little") for n in offsets),
        noise(2034, 700),
        bytes(512),
        triangle_wave(480),
        b"\xff" * 96,
        b"".join(n.to_bytes(2, "little") + (n * n).to_bytes(8, "little") + bytes(6) for n in range(40)),
        noise(77, 612),
    ]
    return b"".join(parts)


# --- writing and checking ----------------------------------------------------

GENERATORS = {
    "bytes.bin": bytes_bin,
    "crlf.txt": crlf_txt,
    "latin1.txt": latin1_txt,
    "records.json": records_json,
    "service.log": service_log,
    "table.csv": table_csv,
}


def manifest_line(name: str, data: bytes) -> str:
    entry = CATALOGUE[name]
    digest = hashlib.sha256(data).hexdigest()
    return "\t".join((name, str(len(data)), digest, *entry, LICENCE))


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the expected content of every file; hand-written files are read."""
    found = {}
    for name in sorted(CATALOGUE):
        if name in GENERATORS:
            found[name] = GENERATORS[name]()
        elif (folder / name).is_file():
            found[name] = (folder / name).read_bytes()
    return found


def manifest(found: dict[str, bytes]) -> bytes:
    lines = ["\t".join(COLUMNS)]
    lines += [manifest_line(name, data) for name, data in found.items()]
    return ("\n".join(lines) + "\n").encode("utf-8")


def style_problem(data: bytes) -> str | None:
    """Returns the faults of a hand-written text."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is not UTF-8 at byte {error.start}"
    if b"\r" in data:
        return "has a carriage return; hand-written texts use LF"
    if not data.endswith(b"\n") or data.endswith(b"\n\n"):
        return "does not end with exactly one newline"
    return None


def problems(folder: Path) -> list[str]:
    """Compares the folder with the expected content; returns one message per fault."""
    found, messages = contents(folder), []
    for name in sorted(CATALOGUE):
        path = folder / name
        if not path.is_file():
            messages.append(f"{name}: missing")
        elif name in GENERATORS and path.read_bytes() != found[name]:
            messages.append(f"{name}: differs from what generate.py writes")
        elif name not in GENERATORS and (fault := style_problem(found[name])):
            messages.append(f"{name}: {fault}")
    messages += manifest_problems(folder, found)
    strangers = {path.name for path in folder.iterdir() if path.is_file()}
    for name in sorted(strangers - set(CATALOGUE) - NOT_CORPUS):
        messages.append(f"{name}: not in the catalogue of generate.py")
    return messages


def manifest_problems(folder: Path, found: dict[str, bytes]) -> list[str]:
    """Returns the files whose manifest lines are wrong."""
    path = folder / MANIFEST
    if not path.is_file():
        return [f"{MANIFEST}: missing"]
    raw = path.read_bytes()
    if raw == manifest(found):
        return []
    lines = set(raw.decode("utf-8", "replace").split("\n"))
    wrong = [n for n, data in found.items() if manifest_line(n, data) not in lines]
    if not wrong:
        return [f"{MANIFEST}: has lines that do not belong there"]
    return [f"{name}: does not match its line in {MANIFEST}" for name in wrong]


def write(folder: Path) -> None:
    found = contents(folder)
    for name in GENERATORS:
        (folder / name).write_bytes(found[name])
    (folder / MANIFEST).write_bytes(manifest(found))


def main(arguments: Sequence[str] | None = None, folder: Path = HERE) -> int:
    parser = argparse.ArgumentParser(description="Write or check the test corpora.")
    parser.add_argument("--check", action="store_true", help="change nothing, compare")
    options = parser.parse_args(arguments)
    if not options.check:
        write(folder)
    messages = problems(folder)
    for message in messages:
        print(f"corpora: {message}", file=sys.stderr)
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main())
