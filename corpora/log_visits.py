"""The visitors of the shop, and what they do there."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import log_words as words
from log_requests import Requests
from log_system import BASE62, MS, SECOND, Process, Slots, User, Visit, euros

# Where a visitor goes from each place.
NEXT = {
    "home": ((30, "search"), (38, "category"), (8, "product"), (6, "account"), (4, "info"), (14, "leave")),
    "search": ((52, "product"), (22, "search"), (8, "category"), (18, "leave")),
    "category": ((58, "product"), (16, "category"), (8, "search"), (18, "leave")),
    "product": ((28, "product"), (21, "add"), (18, "category"), (10, "search"), (3, "info"), (20, "leave")),
    "add": ((36, "cart"), (30, "product"), (18, "category"), (10, "search"), (6, "leave")),
    "cart": ((56, "checkout"), (18, "product"), (10, "home"), (16, "leave")),
    "checkout": ((30, "account"), (8, "home"), (62, "leave")),
    "account": ((22, "note"), (24, "home"), (14, "product"), (40, "leave")),
    "note": ((20, "account"), (80, "leave")),
    "info": ((30, "home"), (20, "category"), (50, "leave")),
}
CATEGORIES = tuple(line.split()[0] for line in words.GOODS)
APP_USE = ((40, "show"), (22, "list"), (14, "find"), (8, "add"), (14, "wish"), (4, "orders"))
SHELVES = ((60, ""), (12, "?sort=price"), (8, "?sort=new"), (14, "?page=2"), (6, "?page=3"))
CHECKOUT = "/api/v2/checkout"
SESSION = "/api/v2/session"


def quoted(text: str) -> str:
    """Encodes a query value as browsers do."""
    plain = BASE62 + "-._"
    return "".join([chr(b) if chr(b) in plain else f"%{b:02X}" for b in text.encode()]).replace("%20", "+")


def machine_visit(address: str, agent: str) -> Visit:
    """Returns a visit by an HTTP client without a user."""
    return Visit(User(0, "", "", address, "", 0, ""), agent, "HTTP/1.1", "", "-", False)


class Visits(Requests):
    """The visitors, each of them a process."""

    # --- people in the shop --------------------------------------------------

    def shopper(self) -> Process:
        dice = self.dice
        came_from = dice.weighted(words.REFERRERS).format(n=dice.between(1000, 60000))
        visit, step = self.enter(came_from=came_from), dice.weighted(((45, "home"), (25, "category"), (30, "product")))
        while step != "leave":
            yield from getattr(self, step)(visit)
            yield int(dice.lognormal(17, 0.8) * SECOND)
            step = dice.weighted(NEXT[step])
            if not visit.signed_in and dice.chance(0.06):
                yield from self.sign_in(visit)

    def home(self, visit: Visit) -> Process:
        path = "/"
        if visit.came_from == "-" and self.dice.chance(0.2):
            sent = self.start + timedelta(self.day // 7 * 7)
            path = f"/?utm_source=newsletter&utm_campaign={sent}&u={self.dice.text(BASE62, 10)}"
        self.page(visit, path, 22, 31000, cache="hit" if self.dice.chance(0.8) else "miss")
        yield 300 * MS

    def info(self, visit: Visit) -> Process:
        self.page(visit, f"/pages/{self.dice.favourite(words.PAGES)}", 9, 14000, "/pages/:name", cache="hit")
        yield 100 * MS

    def category(self, visit: Visit) -> Process:
        dice, name = self.dice, self.dice.favourite(CATEGORIES)
        path, hits = f"/c/{name}{dice.weighted(SHELVES)}", dice.between(8, 48)
        passed = self.page(visit, path, 44, 52000, "/c/:category", sql="category", category=name, hits=hits)
        visit.looking_at = self.goods(name)
        self.images(visit, self.goods(name), passed.end)
        yield 200 * MS

    def wanted(self) -> str:
        """Returns a text that a visitor types into the search field."""
        dice = self.dice
        if dice.chance(0.3):
            return dice.favourite(words.SEARCH_OTHER)
        thing = self.goods().thing.lower()
        text = thing if dice.chance(0.2) else thing.partition(" ")[2]
        if dice.chance(0.3):
            text += " " + dice.favourite(words.SEARCH_EXTRA)
        if dice.chance(0.12):
            # Two letters changed places, or are lost.
            slip = dice.below(len(text) - 1)
            text = text[:slip] + (text[slip + 1] + text[slip] if dice.chance(0.5) else "") + text[slip + 2 :]
        return text.strip()

    def search(self, visit: Visit) -> Process:
        dice, text = self.dice, self.wanted()
        typed = dice.between(2, 4)
        while typed < len(text) and dice.chance(0.7):
            self.serve(visit, f"GET /api/v2/suggest?q={quoted(text[:typed].rstrip())}", 7, 700, part="search")
            typed += dice.between(1, 4)
            yield int(dice.lognormal(420) * MS)
        fields: dict[str, Any] = {"query": text, "hits": 0 if dice.chance(0.08) else int(dice.lognormal(14, 0.9))}
        self.page(visit, f"/search?q={quoted(text)}", 58, 38000, "/search", part="search", sql="search", **fields)
        yield 200 * MS

    def product(self, visit: Visit) -> Process:
        dice, shown = self.dice, visit.looking_at
        if shown is None or dice.chance(0.5):
            shown = self.goods(shown.category if shown and dice.chance(0.6) else "")
        visit.looking_at = shown
        passed = self.page(visit, f"/p/{shown.slug}", 36, 44000, "/p/:slug", sql="product", product=shown.number)
        self.images(visit, shown, passed.end)
        yield int(dice.lognormal(180) * MS)
        sku, free = dice.pick(shown.skus), dice.below(60)
        passed = self.serve(visit, f"GET /api/v2/stock?sku={sku}", 12, 210, part="stock")
        if passed.status >= 500:
            self.crash(passed, "stock", sku=sku)
        else:
            text = f"stock.StockClient - {sku}: {free} free, {dice.below(4)} reserved (EU{dice.between(1, 3)})"
            self.order_log(passed.end - 2 * MS, "DEBUG", text, passed.trace)
        if dice.chance(0.6):
            yield int(dice.lognormal(150) * MS)
            call, route = f"GET /api/v2/similar/{shown.number}", "/api/v2/similar/:number"
            score = round(dice.random(), 4)
            self.serve(visit, call, 26, 2600, route, model=f"sim-{self.day // 3 + 11}", score=score)

    def add(self, visit: Visit) -> Process:
        dice, product = self.dice, visit.looking_at or self.goods()
        visit.cart = visit.cart or dice.uuid()
        sku, count = dice.pick(product.skus), dice.weighted(((78, 1), (15, 2), (5, 3), (2, 6)))
        fields: dict[str, Any] = {"cart": visit.cart, "sku": sku, "qty": count}
        passed = self.serve(visit, "POST /api/v2/cart/lines", 48, 900, part="stock", sql="cart", status=201, **fields)
        if passed.status >= 500:
            self.crash(passed, dice.pick(("stock", "stock", "json")), sku=sku, cart=visit.cart)
        else:
            visit.lines.append((sku, product.cents, count))
            state = f"({len(visit.lines)} lines, total {euros(visit.total)} EUR)"
            text = f"cart.CartService - Added {sku} x{count} to cart {visit.cart} {state}"
            self.order_log(passed.end - 3 * MS, "INFO", text, passed.trace)
            if dice.chance(0.08):
                text = f"stock.StockClient - Only {dice.between(1, 5)} of {sku} left in EU{dice.between(1, 3)}"
                self.order_log(passed.end - 4 * MS, "WARN", text, passed.trace)
        yield 500 * MS

    def cart(self, visit: Visit) -> Process:
        passed = self.page(visit, "/cart", 31, 17000, cart=visit.cart or None, lines=len(visit.lines))
        if visit.cart:
            text = f"cart.CartService - Loaded cart {visit.cart}: {len(visit.lines)} lines, {euros(visit.total)} EUR"
            self.order_log(passed.end - 4 * MS, "DEBUG", text, passed.trace)
        yield 300 * MS

    def sign_in(self, visit: Visit) -> Process:
        dice, mail = self.dice, visit.user.mail
        while dice.chance(0.15):
            reason = dice.pick(("bad_password", "bad_password", "locked", "unknown_user"))
            self.serve(visit, f"POST {SESSION}", 180, 120, status=401, email=mail, reason=reason)
            yield int(dice.lognormal(9) * SECOND)
        visit.signed_in = self.serve(visit, f"POST {SESSION}", 180, 640, email=mail).status == 200
        yield int(dice.lognormal(2) * SECOND)

    def account(self, visit: Visit) -> Process:
        if not visit.signed_in:
            yield from self.sign_in(visit)
        orders = visit.user.orders
        self.page(visit, "/account/orders", 40, 21000, sql="account", orders=len(orders))
        if orders and self.dice.chance(0.7):
            yield int(self.dice.lognormal(6) * SECOND)
            path = f"/account/orders/{self.dice.pick(orders)}"
            self.page(visit, path, 33, 18000, "/account/orders/:id", sql="order")

    def note(self, visit: Visit) -> Process:
        """Sends a message to the shop's staff."""
        dice, user = self.dice, visit.user
        known: dict[str, Any] = {"order": dice.pick(user.orders)} if user.orders else {}
        text = dice.favourite(words.NOTE).format_map(Slots(self, **known))
        self.tickets += 1
        fields = {"ticket": f"T-{self.tickets}", "lang": dice.pick(("en", "en", "de", "fr")), "text": text}
        passed = self.serve(visit, "POST /api/v2/tickets", 70, 340, status=201, **fields)
        mail = self.task("mail", "ticket-received", passed.trace, to=user.mail, ticket=fields["ticket"])
        self.spawn(mail, passed.end - self.now)
        yield SECOND

    def checkout(self, visit: Visit) -> Process:
        dice, user = self.dice, visit.user
        if not visit.lines:
            yield from self.add(visit)
        fields: dict[str, Any] = {"cart": visit.cart}
        self.page(visit, "/checkout", 35, 19000, **fields)
        yield int(dice.lognormal(40) * SECOND)
        passed = self.serve(visit, f"POST {CHECKOUT}", 120, 1400, part="stock", status=201, **fields)
        if passed.status >= 500:
            self.crash(passed, dice.pick(("price", "stock")), **fields)
            return
        rule, shipping = dice.favourite(("none", "WELCOME10", "SPRING", "TRADE5")), dice.pick(("0.00", "4.90", "9.50"))
        text = f"Quote for cart {visit.cart}: goods {euros(visit.total)}, shipping {shipping}, rule {rule}"
        self.order_log(passed.end - 20 * MS, "INFO", f"checkout.CheckoutService - {text}", passed.trace)
        yield int(dice.lognormal(50) * SECOND)
        passed = self.serve(
            visit, f"POST {CHECKOUT}/confirm", 640, 760, part="payment", sql="order", status=201, **fields
        )
        if passed.status >= 500 or dice.chance(0.04):
            self.crash(passed, dice.pick(("pay", "pay", "db")), order=self.order + 1)
            return
        self.order += 1
        order, total, paid = self.order, visit.total, f"pay_{dice.text(BASE62, 14)}"
        user.orders.append(order)
        method = dice.weighted(((50, "card"), (30, "wallet"), (15, "invoice"), (5, "gift")))
        text = f"pay.NorthpayGateway - Authorised {paid} for order {order}: {euros(total)} EUR by {method}"
        self.order_log(passed.end - 30 * MS, "INFO", text, passed.trace)
        text = f"{len(visit.lines)} lines, {euros(total)} EUR"
        text = f"checkout.CheckoutService - Order {order} placed by user {user.number} ({user.tier}): {text}"
        self.order_log(passed.end - 18 * MS, "INFO", text, passed.trace)
        text = f"store.OrderStore - Order {order} saved in {dice.lognormal(22):.0f} ms, {len(visit.lines) + 2} rows"
        self.order_log(passed.end - 15 * MS, "DEBUG", text, passed.trace)
        visit.lines, visit.cart = [], ""
        self.spawn(self.delivery(order, total, paid, passed.trace, user), passed.end - self.now)
        yield SECOND

    def delivery(self, order: int, total: int, paid: str, trace: str, user: User) -> Process:
        """Follows an order up for a few hours."""
        dice, to = self.dice, user.mail
        self.spawn(self.task("mail", "order-confirmation", trace, order=order, to=to, lang=self.drawn("lang")))
        fields: dict[str, Any] = {"order": order, "payment": paid, "amount": total, "currency": "EUR"}
        self.spawn(self.task("payments", "capture", trace, "payment", **fields))
        yield int(dice.lognormal(4) * SECOND)
        provider = machine_visit("10.20.0.9", "northpay-hooks/3")
        call, route, event = "POST /hooks/northpay", "/hooks/:provider", "payment.captured"
        self.serve(provider, call, 25, 20, route, status=204, event=event, payment=paid)
        yield int(dice.lognormal(30) * SECOND)
        number = f"R{self.start.year}-{order - 930000}"
        self.spawn(self.task("documents", "invoice", trace, order=order, number=number, pages=1))
        yield int(dice.lognormal(5400, 0.8) * SECOND)
        carrier, parcel = dice.favourite(("nordpost", "swift", "parcelo")), self.drawn("parcel")
        fields = {"order": order, "carrier": carrier, "parcel": parcel, "grams": int(dice.lognormal(1400, 0.9))}
        self.spawn(self.task("shipping", "label", trace, "stock", **fields))
        text = f"Order {order} packed in EU{dice.between(1, 3)}, handed to {carrier} as {parcel}"
        self.order_log(self.now + 4 * SECOND, "INFO", f"events.ShipmentListener - {text}", trace)
        self.spawn(self.task("mail", "order-shipped", trace, order=order, to=to, parcel=parcel), 6 * SECOND)

    # --- and others ----------------------------------------------------------

    def app_user(self) -> Process:
        """Simulates a visitor with the shop's own app, which calls the API and sends no referrer."""
        dice = self.dice
        visit = self.enter(agent=dice.weighted(words.APPS), signed_in=0.9)
        self.serve(visit, "GET /api/v2/home", 30, 5200, cache="hit")
        for _ in range(1 + int(dice.lognormal(4, 0.8))):
            yield int(dice.lognormal(11, 0.8) * SECOND)
            visit.looking_at = product = self.goods()
            does, number = dice.weighted(APP_USE), product.number
            if does == "show":
                call = f"GET /api/v2/products/{number}"
                self.serve(visit, call, 28, 4800, "/api/v2/products/:number", sql="product", product=number)
            elif does == "list":
                call = f"GET /api/v2/products?category={product.category}&limit=24&offset={24 * dice.below(3)}"
                self.serve(visit, call, 41, 11000, sql="category", category=product.category)
            elif does == "find":
                text = self.wanted()
                call, hits = f"GET /api/v2/search?q={quoted(text)}&limit=24", int(dice.lognormal(14))
                self.serve(visit, call, 55, 9000, part="search", sql="search", query=text, hits=hits)
            elif does == "add":
                yield from self.add(visit)
            elif does == "orders":
                self.serve(visit, "GET /api/v2/orders?limit=20", 38, 3300, sql="account")
            elif self.day >= max(1, self.days * 85 // 100):
                # The call that is new in the last days.
                call, items = f"PUT /api/v3/wishlist/items/{product.skus[0]}", dice.between(1, 20)
                self.serve(visit, call, 33, 180, "/api/v3/wishlist/items/:sku", items=items)

    def crawler(self) -> Process:
        dice = self.dice
        visit = machine_visit(self.address(), dice.weighted(words.BOTS).format(c=144))
        self.serve(visit, "GET /robots.txt", 2, 310)
        for _ in range(int(dice.lognormal(7, 0.9))):
            yield int(dice.lognormal(2.4) * SECOND)
            kind, product = dice.weighted(((70, "product"), (15, "category"), (15, "gone"))), self.goods()
            if kind == "product":
                self.serve(visit, f"GET /p/{product.slug}", 36, 44000, "/p/:slug", product=product.number)
            elif kind == "category":
                call = f"GET /c/{product.category}?page={dice.between(1, 9)}"
                self.serve(visit, call, 44, 52000, "/c/:category", category=product.category)
            else:
                old = f"{product.slug.rpartition('-')[0]}-{dice.between(100, 999)}"
                self.serve(visit, f"GET /p/{old}", 8, 3900, "/p/:slug", status=404)

    def scanner(self) -> Process:
        """Simulates a visitor who looks for vulnerabilities."""
        dice = self.dice
        visit = machine_visit(self.address(), dice.pick(words.SCANNERS))
        for _ in range(int(dice.lognormal(9, 0.8))):
            status, size = dice.weighted(((80, (404, 153)), (12, (403, 146)), (8, (301, 162))))
            self.gateway(self.now, visit, f"GET {dice.pick(words.SCANNED)}", status, size, 0, dice.hex(16))
            yield int(dice.lognormal(400, 0.9) * MS)

    def clerk(self) -> Process:
        """Simulates a member of the staff in the back office."""
        dice, login = self.dice, self.dice.favourite(words.STAFF[:4])
        number = words.STAFF.index(login)
        visit = machine_visit(f"10.20.8.{31 + number}", words.AGENTS[number][1].format(c=143, f=145))
        visit.user.number, visit.user.tier, visit.signed_in, visit.login = 100 + number, "staff", True, login
        visit.sid = dice.text(BASE62, 12)
        for _ in range(1 + int(dice.lognormal(4))):
            order = self.order - dice.below(400)
            does = dice.weighted(((25, "list"), (45, "show"), (20, "note"), (10, "report")))
            path = f"/admin/orders/{order}"
            if does == "list":
                state = dice.pick(("placed", "paid", "packed", "disputed"))
                self.page(visit, f"/admin/orders?state={state}", 90, 36000, "/admin/orders", sql="account")
            elif does == "show":
                self.page(visit, path, 55, 24000, "/admin/orders/:id", sql="order", order=order)
            elif does == "report":
                self.page(visit, "/admin/reports/stock", 900, 60000, "/admin/reports/:name", sql="report")
            else:
                text = dice.pick(words.NOTE).format_map(Slots(self, order=order))
                call, route = f"POST {path}/notes", "/admin/orders/:id/notes"
                self.serve(visit, call, 60, 240, route, status=201, order=order, by=login, note=text)
            yield int(dice.lognormal(50, 0.9) * SECOND)

    def probe(self) -> Process:
        """Simulates the external monitor, which asks twice in a row."""
        watch = machine_visit("198.18.4.7", "uptime-probe/2")
        for _ in range(2):
            took, behind = int(self.dice.lognormal(3) * MS), f"10.20.1.{11 + self.dice.below(4)}:8080"
            self.gateway(self.now, watch, "GET /healthz", 200, 2, took, self.dice.hex(16), behind)
            yield 10 * SECOND
