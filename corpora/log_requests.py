"""The log lines of requests, exceptions and jobs."""

from __future__ import annotations

import zlib
from datetime import timedelta
from typing import Any, NamedTuple

import log_words as words
from log_system import CROCKFORD, DAY, EPOCH, MS, SECOND, WEB, Process, Product, Slots, System, Visit

SITE = "https://www.fernway.example"
# What the storefront says when a part that it depends on fails it.
ERRORS = {
    "database": ("PoolTimeout", "no connection after 3000 ms, 40 waiting"),
    "search": ("SearchUnavailable", "circuit search-index is open"),
    "stock": ("UpstreamError", "orders answered 503"),
    "payment": ("UpstreamTimeout", "orders did not answer within 15000 ms"),
}
JOB_ERRORS = ("status 502 from northpay", "timeout awaiting response headers", "connection reset by peer")


class Passed(NamedTuple):
    """The outcome of a request."""

    trace: str
    status: int
    end: int


class Requests(System):
    """The services that answer requests."""

    def serve(
        self,
        visit: Visit,
        call: str,
        median: float,
        size: float,
        route: str = "",
        part: str = "database",
        sql: str = "",
        status: int = 200,
        **fields: Any,
    ) -> Passed:
        """Lets the storefront answer; the answer depends on `part` and fails with it.

        The parameters are what one route of the storefront is like.
        """
        dice, server = self.dice, self.dice.below(len(WEB))
        trace, method, path = dice.hex(16), *call.partition("?")[0].split(" ")
        took = dice.lognormal(median, 0.45) * (8 if dice.chance(0.008) else 1)
        took *= dice.between(3, 9) if self.ill(part) else 1
        error: dict[str, Any] = {}
        if self.fails(part):
            status = dice.weighted(((50, 500), (35, 503), (15, 504)))
            took = {503: 3000 + dice.below(8), 504: 15000 + dice.below(8)}.get(status, took)
            kind, message = ERRORS[part]
            error = {"error": {"type": kind, "message": message, "retryable": status != 500}}
        elif method == "GET" and status == 200 and dice.chance(0.04):
            status = 304
        # One page has much the same length every time.
        length = int(size * (0.6 + zlib.crc32(path.encode()) % 1000 / 1250))
        length = {304: 0, 500: 1843, 503: 612, 504: 164}.get(status, length + dice.below(60))
        micros, stored = int(took * MS), took * (0.2 + 0.6 * dice.random())
        end = self.now + micros
        record: dict[str, Any] = {"user": None, "sid": visit.sid}
        if visit.signed_in:
            record["user"] = {"id": visit.user.number, "tier": visit.user.tier}
        record |= {"http": {"method": method, "route": route or path, "status": status}, "ms": round(took, 1)}
        record |= {"db": {"n": dice.between(1, 9), "ms": round(stored, 1)}, **fields, **error}
        if dice.chance(0.12):
            self.remark(self.now + micros // 2, dice.favourite(words.STOREFRONT_REMARKS), trace, WEB[server])
        level = "error" if status >= 500 else "warn" if status >= 400 else "info"
        self.storefront(end, level, "request failed" if error else "request completed", trace, WEB[server], **record)
        if sql and stored > 90:
            self.slow_query(end, sql, stored, visit)
        at, behind = end + dice.below(2 * MS), f"10.20.1.{11 + server}:8080"
        self.gateway(at, visit, call, status, length, micros, trace, behind)
        return Passed(trace, status, end)

    def page(self, visit: Visit, path: str, median: float, size: float, route: str = "", **fields: Any) -> Passed:
        """Serves a page to a browser, with everything that it loads."""
        dice, first = self.dice, not visit.came_from.startswith(SITE)
        passed = self.serve(visit, f"GET {path}", median, size, route, **fields)
        visit.came_from = SITE + path
        at, build, grown = passed.end, self.build["storefront"], self.versions["storefront"][2] * 311
        for name, length in ((f"app.{build}.css", 48211), (f"shop.{build}.js", 219377), ("icons.svg", 9120)):
            # Most browsers and the network in front of the shop have these already.
            if first and dice.chance(0.45):
                at += int(dice.lognormal(60) * MS)
                self.gateway(at, visit, f"GET /assets/{name}", 200, length + grown, MS, dice.hex(16))
        return passed

    def images(self, visit: Visit, product: Product, at: int) -> None:
        dice, colour = self.dice, product.skus[0].split("-")[1].lower()
        for view in range(dice.weighted(((55, 0), (20, 1), (15, 2), (10, 4)))):
            at += int(dice.lognormal(40) * MS)
            path = f"/img/{product.number}/{colour}-{view + 1}-{dice.pick((640, 1280))}.webp"
            size, took = 20000 + zlib.crc32(path.encode()) % 90000, int(dice.lognormal(3) * MS)
            self.gateway(at, visit, f"GET {path}", 200, size, took, dice.hex(16))

    def slow_query(self, at: int, route: str, took: float, visit: Visit) -> None:
        dice = self.dice
        _, statement, needs = dice.pick([row for row in words.SQL if row[0] == route])
        product, day = self.goods(), self.start + timedelta(self.day - dice.between(1, 30))
        known = {
            "query": product.thing,
            "page": 24 * dice.below(4),
            "category": product.category,
            "product": product.number,
            "few": dice.between(1, 4),
            "sku": product.skus[0],
            "order": self.order - dice.below(300),
            "user": visit.user.number,
            "cents": visit.total,
            "date": f"{day} 00:00:00+00",
        }
        values = [f"${place + 1} = '{known.get(need, need)}'" for place, need in enumerate(needs.split())]
        who, pid = "report@shop " if route == "report" else "shop@shop ", dice.between(4021, 4060)
        self.database(at, f"LOG:  duration: {took:.3f} ms  execute <unnamed>: {statement}", who, pid)
        self.database(at, f"DETAIL:  parameters: {', '.join(values)}", who, pid)

    def order_log(self, at: int, level: str, text: str, trace: str) -> None:
        # One request stays with one thread, and was not handled before it came.
        thread = f"http-nio-8080-exec-{zlib.crc32(trace.encode()) % 24 + 1}"
        self.orders(max(at, self.now), f"{level:5}", thread, f"e.f.orders.{text}", trace)

    def crash(self, passed: Passed, place: str, **known: Any) -> None:
        """Logs an exception of the order service, with its stack."""
        dice, (_, minor, patch) = self.dice, self.versions["orders"]
        _, kind, message, cause = dice.pick([row for row in words.EXCEPTIONS if row[0] == place])
        slots, frames = Slots(self, **known), []
        # A look into a cache or not, a filter more or less: the same error seldom has the same stack twice.
        for frame in (*words.FRAMES[place][dice.below(2) :], *words.SERVLET[dice.below(2) : dice.between(6, 12)]):
            name, _, line = frame.rpartition(":")
            moved = int(line) + (minor * 7 % 31 + patch if name.startswith("example") else 0)
            source = name.rpartition(".")[0].rpartition(".")[2].partition("$")[0]
            frames.append(f"\tat {name}({source}.java:{moved})")
        parts = [f"api.ErrorHandler - {kind.rpartition('.')[2]} answered with {passed.status}"]
        parts += [f"{kind}: {message.format_map(slots)}", *frames]
        if cause != "-":
            parts += [f"Caused by: {cause.format_map(slots)}", *frames[: dice.between(1, 3)]]
            parts += [f"\t... {len(frames) + dice.between(18, 21)} common frames omitted"]
        self.order_log(passed.end - MS, "ERROR", "\n".join(parts), passed.trace)

    def task(self, queue: str, kind: str, trace: str = "", part: str = "", **fields: Any) -> Process:
        """Puts a job into the queue and takes it out, again if it fails."""
        dice = self.dice
        stamp = ((self.start - EPOCH).days * DAY + self.now) // MS
        ident = "".join([CROCKFORD[stamp >> shift & 31] for shift in range(45, -1, -5)]) + dice.text(CROCKFORD, 16)
        same: dict[str, Any] = {"queue": queue, "kind": kind, "job": ident}
        if trace:
            same["trace"] = trace
        self.jobs(self.now, "info", "job enqueued", **same, **fields)
        yield int(dice.lognormal(350, 1.0) * MS)
        for attempt in range(1, 5):
            failed = bool(part) and self.fails(part)
            took = dice.lognormal(90 if queue == "mail" else 260) * (11 if failed else 1)
            yield int(took * MS)
            done = {**same, "attempt": attempt, "dur": f"{took:.0f}ms"}
            if not failed:
                self.jobs(self.now, "info", "job done", **done)
                return
            wait = 5 * 4**attempt + dice.below(9)
            self.jobs(self.now, "warn", "job failed", **done, error=dice.pick(JOB_ERRORS), retry_in=f"{wait}s")
            yield wait * SECOND
        self.jobs(self.now, "error", "job moved to dead letter queue", **same)
