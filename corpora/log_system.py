"""The shop without its visitors: chance, clock, log formats, people, goods.

It uses only floating-point operations that IEEE 754 fixes to the last bit, and of the
random module only random(): both are the same with every Python on every machine.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeVar

import log_words as words

T = TypeVar("T")
# What happens over time: does something, says in how many microseconds to go on.
Process = Iterator[int]

MS = 1000
SECOND = 1000 * MS
DAY = 86400 * SECOND
EPOCH = date(1970, 1, 1)
DIGITS = "0123456789abcdef"
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WEB, APP, JOB = ("web-1", "web-2", "web-3", "web-4"), ("app-1", "app-2"), ("job-1",)
MACHINES = ("gw-1", "gw-2", *WEB, *APP, *JOB, "db-1")
# Slots of templates that take a number, and its bounds.
NUMBERS = {
    "few": (2, 40),
    "n": (10, 99),
    "code": (51, 65),
    "small": (1, 9),
    "count": (120, 9800),
    "zero": (0, 1),
    "pool": (18, 20),
    "heap": (900, 1700),
    "heap2": (300, 880),
}


class Dice:
    """Random numbers of many distributions, from random() alone."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def below(self, limit: int) -> int:
        return int(self.random() * limit)

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def chance(self, share: float) -> bool:
        return self.random() < share

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def weighted(self, table: Sequence[tuple[int, T]]) -> T:
        left = self.below(sum(weight for weight, _ in table))
        for weight, option in table:
            left -= weight
            if left < 0:
                return option
        raise AssertionError("weights add up to more than their sum")

    def favourite(self, options: Sequence[T]) -> T:
        """Returns one of the options, the first far more often than the last."""
        share = self.random()
        return options[int(share * share * share * len(options))]

    def lognormal(self, median: float, sigma: float = 0.6) -> float:
        # Added one by one: the sum() of later versions of Python rounds otherwise.
        draw = self.random
        normal = (draw() + draw() + draw() + draw() + draw() + draw() - 3.0) * 1.4142135623730951
        # The exponential as a power: that of the C library may differ in its last bit.
        power = 1.0 + sigma * normal / 1024.0
        for _ in range(10):
            power *= power
        return median * power

    def text(self, alphabet: str, length: int) -> str:
        return "".join([alphabet[int(self.random() * len(alphabet))] for _ in range(length)])

    def hex(self, length: int) -> str:
        return self.text(DIGITS, length)

    def uuid(self) -> str:
        return f"{self.hex(8)}-{self.hex(4)}-4{self.hex(3)}-{self.pick('89ab')}{self.hex(3)}-{self.hex(12)}"


@dataclass
class Product:
    slug: str
    thing: str
    category: str
    number: int
    cents: int
    skus: list[str]


@dataclass
class User:
    number: int
    name: str
    mail: str
    address: str
    agent: str
    lag: int
    tier: str
    orders: list[int] = field(default_factory=list)


@dataclass
class Visit:
    """A visit to the shop."""

    user: User
    agent: str
    protocol: str
    sid: str
    came_from: str
    signed_in: bool
    login: str = "-"
    cart: str = ""
    lines: list[tuple[str, int, int]] = field(default_factory=list)
    looking_at: Product | None = None

    @property
    def total(self) -> int:
        return sum(cents * count for _, cents, count in self.lines)


class Slots(dict[str, Any]):
    """The values for a template: those that are not given are drawn, once for each name."""

    def __init__(self, system: System, **given: Any) -> None:
        super().__init__(given)
        self.system = system

    def __missing__(self, key: str) -> Any:
        self[key] = self.system.drawn(key)
        return self[key]


def euros(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


class System:
    """The whole system and its clock, in microseconds since the first midnight."""

    def __init__(self, folder: Path, size: int, days: int, seed: int, start: date) -> None:
        self.folder, self.size, self.days, self.start = folder, size, days, start
        self.dice = Dice(seed)
        self.now = self.written = self.begun = self.turn = 0
        self.pending: list[tuple[int, int, Process]] = []
        self.entries: dict[str, list[tuple[int, int, str]]] = {}
        self.trouble: dict[str, int] = {}
        self.versions = {"storefront": [4, 31, 2], "orders": [2, 118, 0], "jobs": [1, 9, 4], "gateway": [1, 27, 4]}
        self.build = {name: self.dice.hex(7) for name in self.versions}
        self.order, self.offset, self.pid, self.tickets, self.sessions = 1048213, 48211907, 20114, 81200, 4410
        self.networks = [self.network() for _ in range(60)]
        self.products = self.catalogue()
        self.top_user = 60412
        self.users: list[User] = []
        for _ in range(150 + size // days // 2500):
            self.join()
        self.keys = [(name, self.dice.text(BASE62, 43)) for name in words.STAFF]

    # --- the clock -----------------------------------------------------------

    def spawn(self, process: Process, delay: int = 0) -> None:
        self.turn += 1
        heapq.heappush(self.pending, (self.now + delay, self.turn, process))

    def run(self) -> None:
        while self.pending and self.pending[0][0] <= self.days * DAY:
            self.now, _, process = heapq.heappop(self.pending)
            delay = next(process, None)
            if delay is not None:
                self.spawn(process, max(1, delay))

    @property
    def day(self) -> int:
        return self.now // DAY

    def flush(self, day: int) -> None:
        """Writes the lines logged before the last midnight."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for service, entries in sorted(self.entries.items()):
            entries.sort()
            today = [text for at, _, text in entries if at < (day + 1) * DAY]
            self.entries[service] = entries[len(today) :]
            if today:
                path = self.folder / f"{self.start + timedelta(day)}-{service}.log"
                path.write_bytes("".join(today).encode())

    def ill(self, part: str) -> bool:
        return self.trouble.get(part, 0) > self.now

    def fails(self, part: str) -> bool:
        return self.dice.chance(0.35 if self.ill(part) else 0.003)

    # --- the formats ---------------------------------------------------------

    def log(self, service: str, at: int, text: str) -> None:
        self.turn += 1
        self.written += len(text.encode()) + 1
        self.entries.setdefault(service, []).append((at, self.turn, text + "\n"))

    def stamp(self, at: int, between: str = "T", point: str = ".") -> str:
        day, rest = divmod(at, DAY)
        seconds, micros = divmod(rest, SECOND)
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return f"{self.start + timedelta(day)}{between}{clock}{point}{micros // MS:03d}"

    def version(self, name: str) -> str:
        return ".".join(map(str, self.versions[name]))

    @property
    def jobs_name(self) -> str:
        return "worker" if self.day < max(1, self.days * 6 // 10) else "dispatch"

    def gateway(
        self, at: int, visit: Visit, call: str, status: int, size: int, took: int, trace: str, behind: str = "-"
    ) -> None:
        """Logs a request as the gateway does; the parameters are the fields of its line."""
        stamp = self.stamp(at)
        clock = f"{stamp[8:10]}/{MONTHS[int(stamp[5:7]) - 1]}/{stamp[:4]}:{stamp[11:19]} +0000"
        outer = took + (MS if self.dice.chance(0.2) else 0)
        times = f"rt={outer / SECOND:.3f} urt=" + ("-" if behind == "-" else f"{took / SECOND:.3f}")
        line = f'{visit.user.address} - {visit.login} [{clock}] "{call} {visit.protocol}" {status} {size} '
        line += f'"{visit.came_from}" "{visit.agent}" {times} up={behind} trace={trace}'
        self.log("gateway", at, line)

    def storefront(self, at: int, level: str, message: str, trace: str, machine: str, **fields: Any) -> None:
        record: dict[str, Any] = {"ts": self.stamp(at) + "Z", "level": level, "service": "storefront"}
        record |= {"version": self.version("storefront"), "host": machine}
        if self.day >= self.days * 4 // 10:
            record["region"] = "eu-2"
        record |= {"trace": trace} if trace else {}
        record |= {"msg": message, **fields}
        self.log("storefront", at, json.dumps(record, ensure_ascii=False, separators=(",", ":")))

    def orders(self, at: int, level: str, thread: str, text: str, trace: str = "") -> None:
        logger, _, message = text.partition(" - ")
        context = f" [{trace}]" if trace else ""
        self.log("orders", at, f"{self.stamp(at, ' ', ',')} {level} [{thread}] {logger}{context} - {message}")

    def jobs(self, at: int, level: str, message: str, **fields: object) -> None:
        pairs = [f'{key}="{value}"' if " " in str(value) else f"{key}={value}" for key, value in fields.items()]
        head = f"time={self.stamp(at)}Z level={level} service={self.jobs_name} version={self.version('jobs')}"
        self.log(self.jobs_name, at, " ".join([head, f'msg="{message}"', *pairs]))

    def database(self, at: int, text: str, who: str = "", pid: int = 902) -> None:
        self.log("database", at, f"{self.stamp(at, ' ')} UTC [{pid}] {who}{text}".replace("~", "\n\t"))

    def host(self, at: int, machine: str, text: str) -> None:
        stamp = self.stamp(at)
        self.log("host", at, f"{MONTHS[int(stamp[5:7]) - 1]} {int(stamp[8:10]):2d} {stamp[11:19]} {machine} {text}")

    def remark(self, at: int, template: str, trace: str, machine: str) -> None:
        """Logs "level message | key=slot ..." for the storefront."""
        text, _, pairs = template.partition(" | ")
        level, _, message = text.partition(" ")
        slots = Slots(self)
        fields = {key: slots[slot] for key, slot in (pair.split("=") for pair in pairs.split())}
        self.storefront(at, level, message.format_map(slots), trace, machine, **fields)

    # --- words, goods, people ------------------------------------------------

    def drawn(self, key: str) -> Any:
        """Returns a value for a slot of a template."""
        dice = self.dice
        if key in words.NOTE_WORDS:
            return dice.pick(words.NOTE_WORDS[key]).format_map(Slots(self))
        if key in words.SLOTS:
            return dice.pick(words.SLOTS[key])
        if key in NUMBERS:
            return dice.between(*NUMBERS[key])
        if key in ("price", "price2", "amount"):
            return euros(int(dice.lognormal(4900)))
        if key.startswith(("hex", "build", "cart")):
            return dice.hex({"hex7": 7, "cart": 10, "build": 7}.get(key, 12))
        draw = {
            "order": lambda: self.order - dice.below(4000),
            "sku": lambda: dice.pick(dice.favourite(self.products).skus),
            "thing": lambda: dice.favourite(self.products).thing,
            "colour": lambda: dice.pick(words.COLOURS),
            "colour2": lambda: dice.pick(words.COLOURS),
            "town": lambda: dice.pick(words.TOWNS),
            "street": lambda: dice.pick(words.STREETS),
            "name": lambda: dice.pick(words.LAST),
            "table": lambda: dice.pick(words.TABLES),
            "ms": lambda: int(dice.lognormal(900, 0.9)),
            "rate": lambda: f"0.9{dice.between(2000, 4900)}",
            "rate2": lambda: f"11.{dice.between(1000, 3900)}",
            "slug": lambda: self.goods().slug,
            "parcel": lambda: f"00340{dice.between(10**9, 10**10 - 1)}",
            "pid": lambda: self.pid + dice.below(5000),
            "offset": lambda: self.offset,
            "uptime": lambda: f"{self.now // SECOND + 4061822}.{self.now % SECOND:06d}",
            "stamp": lambda: self.stamp(self.now) + "Z",
            "ip": self.address,
        }
        return draw[key]()

    def network(self) -> str:
        """Returns the first half of addresses that belong to nobody on the public network."""
        dice = self.dice
        return f"100.{dice.between(64, 127)}" if dice.chance(0.6) else f"{dice.between(240, 254)}.{dice.below(256)}"

    def address(self) -> str:
        dice = self.dice
        if dice.chance(0.12):
            return f"2001:db8:{dice.hex(4).lstrip('0') or '0'}:{dice.below(99)}::{dice.hex(4).lstrip('0') or '1'}"
        return f"{dice.favourite(self.networks)}.{dice.below(256)}.{dice.between(1, 254)}"

    def catalogue(self) -> list[Product]:
        dice = self.dice
        found: list[Product] = []
        for line in words.GOODS:
            category, *things = line.split()
            for thing in things:
                for _ in range(dice.between(3, 6)):
                    series, number = dice.pick(words.SERIES), 1000 + len(found) * 7 + dice.below(7)
                    name = f"{series} {thing.replace('_', ' ')}"
                    colours = [dice.pick(words.COLOURS) for _ in range(dice.between(1, 4))]
                    skus = [f"FW{number}-{colour[:3].upper()}-{dice.pick(words.SIZES)}" for colour in colours]
                    cents = int(dice.lognormal(4200, 0.8)) // 100 * 100 + dice.pick((0, 50, 90, 95, 99))
                    slug = name.lower().replace(" ", "-")
                    found.append(Product(f"{slug}-{number}", name, category, number, cents + 200, skus))
        keyed = sorted((dice.random(), product.number, product) for product in found)
        return [product for _, _, product in keyed]

    def goods(self, category: str = "") -> Product:
        """Returns a product on sale; a tenth of them appear in the second half of the time."""
        live = self.products if self.day * 2 >= self.days else self.products[: len(self.products) * 9 // 10]
        return self.dice.favourite([product for product in live if not category or product.category == category])

    def join(self) -> User:
        dice = self.dice
        first, last = dice.favourite(words.FIRST), dice.favourite(words.LAST)
        self.top_user += dice.between(1, 5)
        tail = dice.pick(("", "", str(dice.between(1, 99)), str(dice.between(1960, 2007))))
        mail = f"{first}{dice.pick(('.', '.', '_', ''))}{last}{tail}@{dice.pick(words.MAIL)}".lower()
        tier = dice.weighted(((70, "basic"), (24, "plus"), (6, "trade")))
        agent = dice.weighted(words.AGENTS)
        user = User(self.top_user, f"{first} {last}", mail, self.address(), agent, dice.below(30), tier)
        self.users.append(user)
        return user

    def enter(self, agent: str = "", came_from: str = "-", signed_in: float = 0.25) -> Visit:
        dice = self.dice
        user = self.join() if dice.chance(0.1) else dice.favourite(self.users)
        if dice.chance(0.15):
            user.address = self.address()
        newer = self.day + 20 > user.lag
        text = (agent or user.agent).format(c=144 + newer, f=146 + newer, a="5.12.1" if newer else "5.11.0")
        return Visit(user, text, "HTTP/2.0", dice.text(BASE62, 12), came_from, dice.chance(signed_in))
