"""Writes the logs of a fictional web shop, day by day. Must not import llmzip.

A simulation rather than a list of templates: visitors click through the shop, and
every click leaves its lines in the log of each service that it passes, under one
trace id. Orders start jobs, jobs fail and are tried again, releases change versions
and line numbers, and now and then a part of the system is in trouble for a while.
Over the days users and goods join, one service gets a new name and an API call
appears, so that the last days are not quite like the first.

The bytes for a seed are the same with every supported Python on every machine.

Usage:
    python corpora/make_logs.py DIR [--bytes N] [--days N] [--seed N] [--start YYYY-MM-DD]

One file per day and service: DIR/2026-03-02-gateway.log and so on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import log_words as words
from log_requests import ERRORS, Passed
from log_system import APP, DAY, JOB, MACHINES, MS, SECOND, WEB, Process, Slots
from log_visits import Visits

# Visits by hour, on days of work and at weekends.
HOURS = (
    (14, 9, 6, 5, 6, 12, 28, 48, 62, 70, 76, 82, 88, 80, 72, 72, 76, 84, 92, 104, 108, 90, 58, 30),
    (20, 14, 9, 6, 5, 7, 14, 26, 44, 62, 74, 80, 78, 74, 72, 74, 78, 80, 84, 92, 94, 76, 48, 28),
)
# What begins, and how often.
MIX = (
    (200, "shopper"),
    (60, "app_user"),
    (26, "crawler"),
    (7, "scanner"),
    (18, "clerk"),
    (60, "probe"),
    (640, "host_event"),
    (640, "orders_chore"),
    (200, "database_chore"),
    (320, "jobs_chore"),
    (260, "storefront_chore"),
)
# Bytes that one beginning leads to in the end: a first guess, corrected day by day.
BYTES_EACH = 1200


class Shop(Visits):
    """Everything that happens over the days, each thing a process of its own."""

    # --- the days ------------------------------------------------------------

    def calendar(self) -> Process:
        dice, goal = self.dice, 0
        weekends = [(self.start + timedelta(day)).weekday() > 4 for day in range(self.days)]
        shares = [dice.between(80, 95) if weekend else dice.between(100, 120) for weekend in weekends]
        for day, weekend in enumerate(weekends):
            goal += self.size * shares[day] // sum(shares)
            # The guess counts as much as half a day, then what was seen takes over.
            guess = max(20, self.size // self.days // BYTES_EACH // 2)
            each = (self.written + guess * BYTES_EACH) / (self.begun + guess)
            count = max(5, int((goal - self.written) / each))
            hours = [(weight, hour) for hour, weight in enumerate(HOURS[weekend])]
            times = [dice.weighted(hours) * 3600 * SECOND + dice.below(3600 * SECOND) for _ in range(count)]
            if dice.chance(0.3):
                # A newsletter: one visit in eight comes within the hour after it.
                sent = dice.between(7, 18) * 3600 * SECOND
                times[: count // 8] = [sent + int(dice.lognormal(900, 0.7) * SECOND) for _ in range(count // 8)]
            for name in ("storefront", "orders", "jobs"):
                if not weekend and dice.chance(0.45):
                    self.spawn(self.release(name), dice.between(8 * 3600, 16 * 3600) * SECOND)
            for _ in range(dice.weighted(((25, 0), (35, 1), (25, 2), (15, 3)))):
                self.spawn(self.incident(dice.pick(tuple(ERRORS))), dice.between(6 * 3600, 22 * 3600) * SECOND)
            midnight = self.now
            for at in sorted(times):
                yield midnight + at - self.now
                self.begun += 1
                self.spawn(getattr(self, dice.weighted(MIX))())
            yield midnight + DAY - self.now
            self.flush(day)

    def incident(self, part: str) -> Process:
        yield 0
        self.trouble[part] = self.now + int(self.dice.lognormal(1500, 0.8) * SECOND)

    def release(self, name: str) -> Process:
        """A new version, machine by machine."""
        yield 0
        dice, version = self.dice, self.versions[name]
        version[1:] = [version[1] + 1, 0] if dice.chance(0.3) else [version[1], version[2] + 1]
        self.build[name] = build = dice.hex(7)
        unit = self.jobs_name if name == "jobs" else name
        for machine in {"storefront": WEB, "orders": APP, "jobs": JOB}[name]:
            self.host(self.now, machine, f"systemd[1]: Stopping {unit}.service - Fernway {unit}...")
            yield int(dice.lognormal(2200) * MS)
            spent = f"{dice.between(1, 9)}h {dice.below(60)}min {dice.lognormal(21):.3f}s"
            self.host(self.now, machine, f"systemd[1]: {unit}.service: Deactivated successfully.")
            self.host(self.now, machine, f"systemd[1]: {unit}.service: Consumed {spent} CPU time.")
            self.host(self.now, machine, f"systemd[1]: Started {unit}.service - Fernway {unit}.")
            self.pid += dice.between(3, 900)
            if name == "orders":
                for line in words.BOOT:
                    yield int(dice.lognormal(400) * MS)
                    thread, _, text = line.partition(" ")
                    slots = Slots(self, version=self.version(name), build=build, pid=self.pid)
                    self.orders(self.now, "INFO ", thread, text.format_map(slots))
            elif name == "storefront":
                self.storefront(self.now, "info", "server started", "", machine, pid=self.pid, build=build)
            else:
                self.jobs(self.now, "info", "worker started", pid=self.pid, concurrency=8, build=build)
            yield int(dice.lognormal(25, 0.3) * SECOND)

    # --- what goes on without visitors ----------------------------------------

    def orders_chore(self) -> Process:
        if self.dice.chance(0.03):
            # Errors that everybody has become used to.
            passed = Passed(self.dice.hex(16), 500, self.now + MS)
            self.crash(passed, self.dice.favourite(("db", "price", "json", "pay")))
        level, thread, text = self.dice.favourite(words.ORDER_CHORES).split(None, 2)
        self.offset += self.dice.between(1, 400)
        self.orders(self.now, f"{level:5}", thread, text.format_map(Slots(self)))
        yield SECOND

    def database_chore(self) -> Process:
        dice = self.dice
        text, wrote = dice.pick(words.DB_CHORES), dice.lognormal(60)
        if text.endswith("starting: time"):
            self.database(self.now, text)
            yield int(wrote * SECOND)
            text = words.DB_CHORES[1]
        self.database(self.now, text.format_map(Slots(self, wrote=f"{wrote:.3f}")))
        if self.ill("database"):
            for _ in range(dice.between(1, 4)):
                number, waited = dice.between(810000, 819999), dice.lognormal(1100, 0.2)
                text = f"LOG:  process {dice.between(4021, 4060)} still waiting for ShareLock on transaction {number}"
                self.database(self.now, f"{text} after {waited:.3f} ms", "shop@shop ")
                yield int(dice.lognormal(300) * MS)

    def jobs_chore(self) -> Process:
        queue, kind, *pairs = self.dice.pick(words.JOB_CHORES).split()
        slots = Slots(self)
        fields = {key: slots[slot] for key, slot in (pair.split("=") for pair in pairs)}
        yield from self.task(queue, kind, **fields)

    def storefront_chore(self) -> Process:
        self.remark(self.now, self.dice.favourite(words.STOREFRONT_CHORES), "", self.dice.pick(WEB))
        yield SECOND

    def host_event(self) -> Process:
        dice, machine = self.dice, self.dice.pick(MACHINES)
        kinds = (
            (14, self.break_in),
            (12, self.login),
            (26, self.cron),
            (16, self.unit),
            (26, self.firewall),
            (12, self.chore),
        )
        yield from dice.weighted(kinds)(machine)

    def break_in(self, machine: str) -> Process:
        """Names tried one after the other from one address."""
        dice, address = self.dice, self.address()
        for _ in range(int(dice.lognormal(4, 0.9))):
            self.pid += dice.between(1, 30)
            name, port, who = dice.favourite(words.LOGINS), dice.between(32768, 60999), f"sshd[{self.pid}]:"
            if name == "root":
                self.host(self.now, machine, f"{who} Failed password for root from {address} port {port} ssh2")
            else:
                self.host(self.now, machine, f"{who} Invalid user {name} from {address} port {port}")
                text = f"{who} Failed password for invalid user {name} from {address} port {port} ssh2"
                self.host(self.now + 2 * SECOND, machine, text)
            if dice.chance(0.7):
                user = "authenticating user root" if name == "root" else f"invalid user {name}"
                text = f"{who} Disconnected from {user} {address} port {port} [preauth]"
                self.host(self.now + 2 * SECOND + 300 * MS, machine, text)
            yield int(dice.lognormal(6) * SECOND)

    def login(self, machine: str) -> Process:
        dice = self.dice
        self.pid += dice.between(1, 90)
        (name, key), who = dice.pick(self.keys), f"sshd[{self.pid}]:"
        origin = f"10.20.8.{31 + words.STAFF.index(name)} port {dice.between(32768, 60999)}"
        session = f"pam_unix(sshd:session): session {{}} for user {name}"
        self.host(self.now, machine, f"{who} Accepted publickey for {name} from {origin} ssh2: ED25519 SHA256:{key}")
        self.host(
            self.now,
            machine,
            f"{who} {session.format('opened')}(uid={1000 + words.STAFF.index(name)}) by {name}(uid=0)",
        )
        self.sessions += 1
        self.host(self.now, machine, f"systemd-logind[580]: New session {self.sessions} of user {name}.")
        number = self.sessions
        yield int(dice.lognormal(70, 1.2) * SECOND)
        self.host(self.now, machine, f"{who} Received disconnect from {origin}:11: disconnected by user")
        self.host(self.now, machine, f"{who} {session.format('closed')}")
        self.host(
            self.now, machine, f"systemd-logind[580]: Session {number} logged out. Waiting for processes to exit."
        )

    def cron(self, machine: str) -> Process:
        line = self.dice.pick(words.CRON)
        self.pid += self.dice.between(2, 60)
        user = line[1 : line.index(")")]
        session = f"pam_unix(cron:session): session {{}} for user {user}"
        self.host(self.now, machine, f"CRON[{self.pid}]: {session.format('opened')}(uid=0) by (uid=0)")
        self.host(self.now, machine, f"CRON[{self.pid + 1}]: {line}")
        number = self.pid
        yield int(self.dice.lognormal(900, 1.0) * MS)
        self.host(self.now, machine, f"CRON[{number}]: {session.format('closed')}")

    def unit(self, machine: str) -> Process:
        dice = self.dice
        name, _, title = dice.favourite(words.UNITS).partition(" ")
        self.host(self.now, machine, f"systemd[1]: Starting {name} - {title}...")
        took = dice.lognormal(900, 1.0)
        yield int(took * MS)
        self.host(self.now, machine, f"systemd[1]: {name}: Deactivated successfully.")
        self.host(self.now, machine, f"systemd[1]: Finished {name} - {title}.")
        if took > 800:
            self.host(self.now, machine, f"systemd[1]: {name}: Consumed {took / 1300:.3f}s CPU time.")

    def firewall(self, machine: str) -> Process:
        dice, index, source = self.dice, MACHINES.index(machine), self.address()
        port = dice.favourite((23, 22, 3389, 445, 8080, 5900, 6379, 1433, 81, 5060, 2375, dice.between(1024, 65535)))
        hops = dice.between(44, 52) if dice.chance(0.5) else dice.between(230, 249)
        line = f"kernel: [{self.drawn('uptime')}] [UFW BLOCK] IN=ens3 OUT= "
        line += f"MAC=52:54:00:7a:1{index}:c4:fe:54:00:00:00:01:08:00 SRC={source} "
        if ":" in source:
            line += f"DST=2001:db8:20::{20 + index} LEN=60 TC=0 HOPLIMIT={hops} FLOWLBL={dice.below(1 << 20)} "
        else:
            line += f"DST=203.0.113.{20 + index} LEN={dice.pick((40, 40, 44, 60))} TOS=0x00 PREC=0x00 "
            line += f"TTL={hops} ID={dice.below(65536)} "
        line += f"PROTO=TCP SPT={dice.between(1024, 65535)} DPT={port} "
        self.host(self.now, machine, f"{line}WINDOW={dice.pick((1024, 1024, 65535, 64240))} RES=0x00 SYN URGP=0")
        yield SECOND

    def chore(self, machine: str) -> Process:
        self.host(self.now, machine, self.dice.favourite(words.HOST_CHORES).format_map(Slots(self)))
        yield SECOND


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the logs of a made-up web shop, one file per day and service.")
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument(
        "--bytes", type=int, default=20_000_000, help="of all files together, roughly (default 20000000)"
    )
    parser.add_argument("--days", type=int, default=10, help="number of days (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another log (default 1)")
    parser.add_argument(
        "--start", type=date.fromisoformat, default=date(2026, 3, 2), help="first day (default 2026-03-02)"
    )
    options = parser.parse_args(arguments)
    if options.bytes < 1 or options.days < 1 or options.seed < 0:
        parser.error("bytes and days must be positive, the seed not negative")
    shop = Shop(options.folder, options.bytes, options.days, options.seed, options.start)
    shop.spawn(shop.calendar())
    shop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
