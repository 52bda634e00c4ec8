"""The words of the logs: people, goods, programs, messages. Data only.

Hosts, mail domains and addresses are of the kinds reserved for examples, so that
they cannot belong to anybody.
"""

# ruff: noqa: E501

from __future__ import annotations


def words(block: str) -> tuple[str, ...]:
    return tuple(block.split())


def lines(block: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in block.strip().split("\n"))


def weighted(block: str) -> tuple[tuple[int, str], ...]:
    """Reads lines of "weight text"."""
    pairs = (line.split(" ", 1) for line in lines(block))
    return tuple((int(weight), text) for weight, text in pairs)


# --- people ------------------------------------------------------------------

FIRST = words("""
    Ada Agnes Aisha Alba Alma Amir Anders Anja Anton Asta Beatriz Bela Bruno Carla Cem Chloe Clara Dana Daniel Davide
    Dilan Edith Elena Elif Emil Enzo Erik Esther Eva Farid Felix Fiona Frida Gita Greta Hanna Hassan Hugo Ida Ines Ivan
    Jakob Jana Jasper Joana Jonas Julia Kaito Karin Kofi Lars Laura Lea Leon Lina Luca Magnus Maja Marek Marta Mateo
    Mei Mila Mina Nadia Nils Nina Noor Olga Oskar Pablo Paula Petra Piotr Priya Rania Rita Rosa Samir Sara Selma Silas
    Simon Sofia Sven Tara Theo Tom Ulla Vera Viktor Wanda Yara Yusuf Zoe""")
LAST = words("""
    Aalto Abe Adler Aguilar Almeida Andersen Bakker Bauer Becker Bergman Bianchi Blom Brandt Castro Conti Costa Cruz
    Dahl Danso Dietrich Dubois Eriksen Esposito Falk Farkas Ferrari Fischer Fontaine Fuchs Garcia Gruber Haas Hahn Hansen
    Hartmann Hoffmann Holm Horvat Ibrahim Ivanova Jansen Jensen Kaya Keller Khan Klein Koch Kovac Kowalski Kruse Kumar
    Lang Larsen Lemaire Lindqvist Lopez Lund Maier Marino Martin Mendes Meyer Moreau Moser Nagy Nakamura Navarro Nielsen
    Novak Nowak Okafor Olsen Ortega Osei Pavlov Pereira Petit Popescu Rahman Reuter Ricci Romero Rossi Roth Ruiz Salo
    Sato Schmitt Schuster Silva Sommer Stein Svensson Tanaka Tran Varga Vogel Wagner Weber Winkler Wolf Yilmaz Ziegler""")
MAIL = words("""
    example.com example.com example.com example.org example.net mail.example.com post.example.org quick.test
    letters.test inbox.example.net uni.example.org works.test""")
TOWNS = words("""
    Aachen Aalborg Arnhem Basel Bergen Bilbao Bologna Bordeaux Bremen Brno Bruges Cork Dresden Eindhoven Galway Gdansk
    Ghent Girona Graz Innsbruck Krakow Leiden Leipzig Liege Linz Ljubljana Lund Lyon Malmo Metz Nantes Odense Oulu Parma
    Plzen Porto Potsdam Rennes Riga Rostock Salzburg Siena Tartu Trento Turku Uppsala Utrecht Verona Vilnius Zwolle""")
STREETS = words("Mill Station Church Harbour Garden Linden Market Castle Bridge Forest Meadow School Well Rose Park")

# --- goods -------------------------------------------------------------------

SERIES = words("""
    Alder Bracken Cairn Dunlin Elder Fjell Gorse Heron Isla Juniper Kestrel Larch Marlin Nettle Osprey Plover Quill
    Rowan Sorrel Tarn Umber Verge Whin Yarrow Zephyr Birch Curlew Drift Ember Fallow""")
# Category, then the things in it; an underscore stands for a space.
GOODS = lines("""
    tents two-person_tent family_tent tarp footprint tent_peg_set guy_line ridge_pole awning
    sleeping down_sleeping_bag summer_sleeping_bag foam_mat inflatable_mat travel_pillow liner
    packs daypack trekking_pack hip_belt rain_cover dry_bag roll-top_pack child_carrier
    clothing rain_jacket fleece wool_base_layer softshell_trousers gaiters mitten sun_hat wind_vest
    footwear hiking_boot trail_shoe camp_slipper wool_sock gaiter_strap insole shoelace
    kitchen gas_stove spirit_burner titanium_mug nesting_pot folding_knife water_filter thermos spork
    lighting headlamp lantern bike_light battery_pack solar_panel usb-c_cable
    cycling pannier saddle_bag bottle_cage chain_oil inner_tube brake_pad track_pump helmet mudguard
    climbing harness belay_device quickdraw chalk_bag dynamic_rope sling carabiner
    garden hand_trowel pruning_saw seed_tray watering_can raised_bed kneeling_pad bird_feeder twine""")
COLOURS = words("moss slate rust sand ink clay fog pine plum ochre black cobalt")
SIZES = words("XS S S M M M L L XL XXL")
# What people add to the name of a thing when they search.
SEARCH_EXTRA = lines("""
    for kids
    waterproof
    ultralight
    sale
    2 person
    men
    women
    spare parts
    replacement
    size 42
    cheap
    gift
    with hood
    60l
    winter
    repair kit
    large
    vegan
    how to wash
    lightest
    red
    merino
    second hand
    foldable""")
SEARCH_OTHER = lines("""
    gift card
    returns
    opening hours
    regenjacke damen
    zelt 3 personen
    schlafsack daunen
    chaussures de randonnée
    sac à dos 40 l
    öl für kette
    zaino trekking
    botas de montaña
    fahrradlampe
    küchenset camping
    student discount
    tent pole broken
    waterproof spray
    gloves
    compass
    size chart
    delivery to norway
    invoice copy
    catalogue
    hammock
    map case
    whistle
    kletterseil 60m
    lampe frontale
    telt
    regnjakke
    sovepose""")
PAGES = words("about shipping returns size-guide repairs sustainability jobs press contact imprint privacy stores")

# --- browsers ----------------------------------------------------------------

# {c} and {f} are the versions of two browsers at the time, {a} that of the shop's own app.
AGENTS = weighted("""
    30 Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{c}.0.0.0 Safari/537.36
    9 Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{c}.0.0.0 Safari/537.36
    18 Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{c}.0.0.0 Mobile Safari/537.36
    14 Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1
    6 Mozilla/5.0 (iPhone; CPU iPhone OS 18_3_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3 Mobile/15E148 Safari/604.1
    7 Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15
    6 Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{f}.0) Gecko/20100101 Firefox/{f}.0
    3 Mozilla/5.0 (X11; Linux x86_64; rv:{f}.0) Gecko/20100101 Firefox/{f}.0
    2 Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:{f}.0) Gecko/20100101 Firefox/{f}.0
    6 Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{c}.0.0.0 Safari/537.36 Edg/{c}.0.0.0
    3 Mozilla/5.0 (Linux; Android 14; SM-A546B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/27.0 Chrome/125.0.0.0 Mobile Safari/537.36
    2 Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.7 Mobile/15E148 Safari/604.1
    1 Mozilla/5.0 (Windows NT 6.1; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/109.0.0.0 Safari/537.36
    1 Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{c}.0.0.0 Safari/537.36""")
APPS = weighted("""
    5 Fernway/{a} (iPhone; iOS 18.6; Scale/3.00)
    2 Fernway/{a} (iPhone; iOS 17.7; Scale/2.00)
    6 Fernway/{a} (Android 14; okhttp/4.12.0)
    3 Fernway/{a} (Android 13; okhttp/4.12.0)""")
BOTS = weighted("""
    6 Mozilla/5.0 (compatible; Gleaner/2.1; +https://gleaner.example/bot.html)
    4 Mozilla/5.0 (Linux; Android 6.0.1) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{c}.0.0.0 Mobile Safari/537.36 (compatible; Lookbot/3.0; +https://look.example/bot)
    2 PriceWatch/1.4 (+https://pricewatch.example)
    2 feedreader/0.9 python-requests/2.32.3
    1 Mozilla/5.0 (compatible; LinkCensus/7; research@example.org)""")
SCANNERS = words("curl/8.5.0 Go-http-client/1.1 python-requests/2.31.0 Mozilla/5.0 zgrab/0.x -")
SCANNED = words("""
    /.env /.git/config /wp-login.php /xmlrpc.php /admin.php /phpmyadmin/index.php /.aws/credentials /server-status
    /actuator/env /api/.env /backup.zip /config.json /old/ /vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php
    /cgi-bin/luci /solr/admin/info/system /console/ /.vscode/sftp.json /login.action /debug/default/view /boaform/admin
    /HNAP1 /owa/auth/logon.aspx /.DS_Store /telescope/requests /_ignition/health-check /manager/html /db.sql""")
REFERRERS = weighted("""
    40 https://www.gleaner.example/
    12 https://look.example/search
    7 https://social.example/
    4 https://hikers.example.org/forum/t/{n}
    3 https://pricewatch.example/offers/{n}
    50 -""")

# --- what people write to support --------------------------------------------

NOTE = lines("""
    {hello} my order {order} {late}. {wish}
    {hello} I ordered a {thing} in {colour} but received {colour2}. {wish} {bye}
    the {part} of my {thing} {broke} after {time}. {wish}
    {hello} {broke2}: {part}, {thing}, bought in {town}. Photos attached. {bye}
    Customer called about {order}: {late}, wants {want}. Told them {promise}.
    Refund of {amount} EUR for {order} approved, reason: {part} {broke}.
    {hello} does the {thing} fit {person}? {bye}
    Is the {thing} in {colour} coming back in stock? {wish}
    spoke to {name}, address is {street} street {n}, {town}; updated. {promise}
    {hello} the discount code SPRING{n} {late2}. {wish} {bye}
    Carrier says parcel {parcel} {late}. {promise}
    {thing} returned, {part} {broke}, {want} agreed with {name}.""")
NOTE_WORDS = {
    "hello": lines("Hi,\nHello,\nGood morning,\nDear team,\nhey\nHello Fernway,\nGuten Tag,\nBonjour,"),
    "bye": lines("Thanks!\nKind regards\nthank you in advance\nBest wishes\nMerci\nPlease call me back.\ncheers"),
    "late": lines("""has not arrived yet
        still shows as packed
        was delivered to the wrong house
        is stuck at the depot in {town}
        arrived without the {part}
        was left in the rain
        says delivered but nobody rang
        has been on the road for {time}"""),
    "late2": lines(
        "does not work\nis refused at checkout\nexpired yesterday\ntakes nothing off\nonly works in the app"
    ),
    "wish": lines("""Can you check?
        I need it by Friday.
        What can be done?
        Please send a new one.
        I would like my money back.
        Could I exchange it for a {colour} one?
        Is this covered by the guarantee?
        Where do I send it?
        We leave on {small} April, so it is urgent.
        Please cancel the rest of the order."""),
    "part": lines(
        "zip\nleft strap\nbuckle\nseam\npole\nvalve\nlid\nhandle\nsole\nswitch\nclip\npump\nhose\nlining\nhook"
    ),
    "broke": lines("""came loose
        broke
        leaks
        will not close any more
        has a tear
        was missing
        makes a strange noise
        went dull
        is bent
        stopped working"""),
    "broke2": lines("Claim\nguarantee case\nDamaged in transit\nWrong item\nmissing part"),
    "time": lines("two weeks\nthree days\na month\nthe first night out\n{n} days\na single trip\nhalf a year"),
    "want": lines("a refund\nan exchange\na voucher\na spare part\na call back\na repair\nto keep it for 20% off"),
    "promise": lines("""we answer within two days
        replacement goes out today
        passed on to the workshop
        warehouse is looking
        carrier has been asked
        refund takes 5 days
        no further action"""),
    "person": lines(
        "a child of {n}\nsomeone 1.9 m tall\nthe {thing} too\na 29 inch wheel\nan older model\na small car"
    ),
}

# --- the order service (Java) ------------------------------------------------

# Exception, its text, the place it came from, the cause below it ("-" for none).
EXCEPTIONS = tuple(
    tuple(line.split(" | "))
    for line in lines("""
    stock | example.fernway.orders.stock.StockUnavailableException | only {small} of {sku} left, {few} wanted (cart {cart}) | -
    stock | example.fernway.http.RemoteCallException | POST http://stock.internal:8090/v1/reservations failed after {ms} ms | java.net.SocketTimeoutException: Read timed out
    price | java.lang.IllegalStateException | price of {sku} changed from {price} to {price2} during checkout | -
    price | java.lang.NullPointerException | Cannot invoke "example.fernway.orders.price.Rule.rate()" because "rule" is null | -
    db | example.fernway.data.DataAccessException | could not load order {order} | java.sql.SQLTransientConnectionException: orders-pool - Connection is not available, request timed out after {ms}ms.
    db | example.fernway.data.OptimisticLockException | row of order {order} was changed by another transaction (version {few}) | -
    db | example.fernway.data.DataAccessException | insert into order_line failed for order {order} | org.postgresql.util.PSQLException: ERROR: deadlock detected
    pay | example.fernway.orders.pay.PaymentDeclinedException | provider northpay declined payment of order {order}: code {code} | -
    pay | example.fernway.http.RemoteCallException | POST https://api.northpay.example/v2/payments answered 502 after {ms} ms | java.io.IOException: unexpected end of stream
    json | example.fernway.http.BadRequestException | field "lines[{small}].quantity" must be at least 1 | com.fasterxml.jackson.core.JsonParseException: Unexpected character ('}}' (code 125)): expected a value""")
)
# The frames of each place, innermost first; those of example.fernway move with every release.
FRAMES = {
    "stock": lines("""
        example.fernway.orders.stock.StockClient.lambda$reserve$2:118
        example.fernway.orders.stock.StockClient.reserve:96
        example.fernway.orders.cart.CartService.checkAvailability:203
        example.fernway.orders.cart.CartService.addLine:141
        example.fernway.orders.api.CartController.add:64"""),
    "price": lines("""
        example.fernway.orders.price.PriceEngine.apply:77
        example.fernway.orders.price.PriceEngine.lambda$total$0:52
        java.base/java.util.stream.ReferencePipeline$3$1.accept:197
        java.base/java.util.ArrayList$ArrayListSpliterator.forEachRemaining:1708
        example.fernway.orders.price.PriceEngine.total:49
        example.fernway.orders.checkout.CheckoutService.quote:188
        example.fernway.orders.api.CheckoutController.start:71"""),
    "db": lines("""
        example.fernway.data.Repository.translate:310
        example.fernway.data.Repository.query:122
        example.fernway.orders.store.OrderStore.find:58
        example.fernway.orders.checkout.CheckoutService.place:242
        example.fernway.orders.checkout.CheckoutService.confirm:231
        example.fernway.orders.api.CheckoutController.confirm:93"""),
    "pay": lines("""
        example.fernway.http.RetryingClient.attempt:88
        example.fernway.http.RetryingClient.send:61
        example.fernway.orders.pay.NorthpayGateway.authorise:134
        example.fernway.orders.checkout.CheckoutService.place:249
        example.fernway.orders.checkout.CheckoutService.confirm:231
        example.fernway.orders.api.CheckoutController.confirm:93"""),
    "json": lines("""
        example.fernway.http.Body.require:45
        example.fernway.orders.api.CartController.add:58"""),
}
SERVLET = lines("""
    java.base/jdk.internal.reflect.DirectMethodHandleAccessor.invoke:103
    java.base/java.lang.reflect.Method.invoke:580
    example.fernway.http.Router.dispatch:151
    example.fernway.http.AuthFilter.doFilter:49
    org.apache.catalina.core.ApplicationFilterChain.doFilter:149
    example.fernway.http.TraceFilter.doFilter:33
    org.apache.catalina.core.ApplicationFilterChain.doFilter:149
    org.apache.catalina.core.StandardWrapperValve.invoke:167
    org.apache.catalina.core.StandardContextValve.invoke:90
    org.apache.coyote.http11.Http11Processor.service:397
    org.apache.tomcat.util.net.NioEndpoint$SocketProcessor.doRun:1741
    java.base/java.lang.Thread.run:1583""")
# Level, thread, logger and message of what the service says by itself.
ORDER_CHORES = lines("""
    DEBUG orders-pool-housekeeper c.z.hikari.pool.HikariPool - orders-pool - Pool stats (total=20, active={small}, waiting={zero})
    INFO  scheduling-1 e.f.orders.jobs.CartSweeper - Removed {n} abandoned carts older than 72 h in {ms} ms
    INFO  scheduling-1 e.f.orders.jobs.OutboxRelay - Relayed {few} events, oldest {ms} ms, lag {zero}
    INFO  scheduling-2 e.f.orders.jobs.RateRefresher - Exchange rates refreshed: EUR/CHF={rate} EUR/SEK={rate2}
    WARN  scheduling-1 e.f.orders.jobs.OutboxRelay - Topic orders.placed partition {small} is behind by {n} events
    INFO  kafka-consumer-0 e.f.orders.events.StockListener - Consumed {few} events from stock.changed-{small} up to offset {offset}
    INFO  kafka-consumer-1 e.f.orders.events.StockListener - Consumed {few} events from stock.changed-{small} up to offset {offset}
    INFO  GC-notify e.f.runtime.GcLog - G1 Young Generation: pause {small}.{n} ms, heap {heap}M -> {heap2}M of 2048M
    DEBUG scheduling-2 e.f.orders.price.RuleCache - {n} price rules in cache, {few} loaded, hit rate 0.{n}
    INFO  scheduling-1 e.f.orders.jobs.ReservationSweeper - Released {few} reservations, kept {n}""")
BOOT = lines("""
    main e.f.orders.OrdersApplication - Starting OrdersApplication {version} ({build}) using Java 21.0.6 with PID {pid}
    main e.f.orders.OrdersApplication - The following profiles are active: prod, eu
    main o.a.catalina.core.StandardEngine - Starting Servlet engine: [Apache Tomcat/10.1.34]
    main c.z.hikari.HikariDataSource - orders-pool - Starting...
    main c.z.hikari.pool.HikariPool - orders-pool - Added connection org.postgresql.jdbc.PgConnection@{build}
    main e.f.data.Migrations - Schema "orders" is up to date, {n} migrations, latest V{n}__order_notes
    main e.f.orders.OrdersApplication - Started OrdersApplication in {small}.{n} seconds (process running for {few}.{n})""")

# --- the storefront and the jobs ----------------------------------------------

# Level, message, and after the bar the fields with the slots that fill them.
STOREFRONT_REMARKS = lines("""
    debug flag evaluated | flag=flag variant=variant
    debug fragment rendered | fragment=fragment ms=n bytes=count
    info price list applied | list=pricelist rules=small
    debug cache miss | key=key ttl=count
    warn image not in store, using placeholder | slug=slug width=width
    info consent saved | choice=choice
    warn slow template | fragment=fragment ms=ms slug=slug
    info recommendation served from fallback | reason=reason slug=slug""")
STOREFRONT_CHORES = lines("""
    info cache sweep done | evicted=count kept=count ms=ms
    debug pool | active=small idle=few waiting=zero
    warn event loop was delayed | p99_ms=n max_ms=ms
    info metrics flushed | series=count bytes=offset ms=n
    info sitemap part written | part=small urls=count
    warn memory above soft limit, collecting | rss_mb=heap freed_mb=n
    info feed exported | target=target products=count skipped=few ms=ms
    info certificate checked | days_left=n
    debug session store compacted | removed=count ms=ms
    warn retrying search index {town}, attempt {small} | wait_ms=ms
    info exchange rates loaded | chf=rate sek=rate2""")
STOREFRONT_SLOTS = {
    "flag": words("new-checkout sticky-filters wallet-button reviews-first big-images fast-cart search-v3"),
    "variant": words("on on off control b"),
    "fragment": words("header footer filters reviews gallery size-table mini-cart breadcrumbs newsletter price-box"),
    "pricelist": words("standard standard standard trade staff spring outlet"),
    "key": words("menu:en menu:de facets:tents facets:packs facets:clothing home:blocks rates geo:ip reviews:top"),
    "width": words("320 640 1280"),
    "choice": words("all none none statistics"),
    "reason": words("timeout model_missing too_few_events disabled"),
    "target": words("pricewatch gleaner social nordpost"),
}
# Queue, kind, and the fields with the slots that fill them.
JOB_CHORES = lines("""
    stock sync warehouse=warehouse rows=count changed=few
    catalogue reindex products=count deleted=zero
    images thumbnails slug=slug sizes=small
    images thumbnails slug=slug sizes=small
    mail newsletter-batch batch=few sent=count bounced=small
    catalogue price-import file=file rows=count skipped=small
    payments reconcile day=n matched=count open=small
    documents archive month=small files=count
    shipping track parcel=parcel state=state
    shipping track parcel=parcel state=state
    mail review-request order=order lang=lang""")
JOB_SLOTS = {
    "warehouse": words("eu1 eu1 eu2 eu3"),
    "file": words("prices-nord.csv prices-trade.csv supplier-14.csv supplier-22.csv supplier-31.csv"),
    "state": words(
        "announced in_depot in_depot on_road on_road delivered delivered delivered returned held_at_customs"
    ),
    "lang": words("en en de fr it"),
}
SLOTS = {**STOREFRONT_SLOTS, **JOB_SLOTS}

# --- the database ------------------------------------------------------------

# Route, statement; "~" begins a new line of it and $1.. are its parameters.
SQL = tuple(
    tuple(line.split(" | "))
    for line in lines("""
    search | SELECT p.id, p.slug, p.title, p.price_cents, ts_rank(p.doc, q) AS rank~FROM product p, plainto_tsquery('simple', $1) q~WHERE p.doc @@ q AND p.active~ORDER BY rank DESC LIMIT $2 OFFSET $3 | query 24 page
    category | SELECT p.id, p.slug, p.title, p.price_cents, count(r.id) AS reviews, avg(r.stars) AS stars~FROM product p LEFT JOIN review r ON r.product_id = p.id~WHERE p.category = $1 AND p.active~GROUP BY p.id ORDER BY p.sold_30d DESC LIMIT $2 | category 48
    product | SELECT v.sku, v.colour, v.size, s.on_hand - s.reserved AS free FROM variant v JOIN stock s USING (sku) WHERE v.product_id = $1 | product
    product | SELECT r.stars, r.title, r.body, u.display_name FROM review r JOIN app_user u ON u.id = r.user_id~WHERE r.product_id = $1 AND r.state = 'visible' ORDER BY r.created_at DESC LIMIT $2 | product 10
    cart | UPDATE stock SET reserved = reserved + $1 WHERE sku = $2 AND on_hand - reserved >= $1 | few sku
    order | INSERT INTO customer_order (id, user_id, currency, total_cents, state, created_at) VALUES ($1, $2, 'EUR', $3, 'placed', now()) | order user cents
    order | SELECT o.*, l.sku, l.quantity, l.price_cents FROM customer_order o JOIN order_line l ON l.order_id = o.id~WHERE o.id = $1 FOR UPDATE OF o | order
    account | SELECT o.id, o.state, o.total_cents, o.created_at FROM customer_order o WHERE o.user_id = $1 ORDER BY o.created_at DESC LIMIT $2 | user 20
    report | SELECT date_trunc('day', created_at) AS day, currency, count(*), sum(total_cents)~FROM customer_order WHERE created_at >= $1 AND state <> 'cancelled'~GROUP BY 1, 2 ORDER BY 1 | date
    report | WITH sold AS (SELECT l.sku, sum(l.quantity) AS n FROM order_line l JOIN customer_order o ON o.id = l.order_id WHERE o.created_at > $1 GROUP BY l.sku)~SELECT s.sku, s.on_hand, coalesce(sold.n, 0) FROM stock s LEFT JOIN sold USING (sku)~WHERE s.on_hand < 3 * coalesce(sold.n, 0) | date""")
)
DB_CHORES = lines("""
    LOG:  checkpoint starting: time
    LOG:  checkpoint complete: wrote {n} buffers ({small}.{few}%); 0 WAL file(s) added, {zero} removed, {small} recycled; write={wrote} s, sync=0.0{few} s, total={wrote} s; distance={count} kB
    LOG:  automatic vacuum of table "shop.public.{table}": index scans: {zero}~pages: 0 removed, {n} remain, {few} scanned~tuples: {n} removed, {offset} remain, 0 are dead but not yet removable
    LOG:  automatic analyze of table "shop.public.{table}" system usage: CPU: user: 0.{few} s, system: 0.0{small} s, elapsed: {small}.{few} s
    LOG:  temporary file: path "base/pgsql_tmp/pgsql_tmp{pid}.{small}", size {offset}
    LOG:  could not receive data from client: Connection reset by peer""")
TABLES = words("stock stock stock customer_order order_line cart cart session review outbox app_user variant")

# --- the machines ------------------------------------------------------------

LOGINS = words("""
    admin root test oracle ubuntu user postgres git guest support ftpuser pi deploy hadoop minecraft jenkins www nagios
    es mysql centos steam vagrant backup dev tomcat ansible web1 student sysadmin""")
STAFF = words("mjensen akoch tferrari lnovak deploy deploy deploy backup")
UNITS = lines("""
    logrotate.service Rotate log files
    apt-daily.service Daily apt download activities
    fstrim.service Discard unused blocks on filesystems
    systemd-tmpfiles-clean.service Cleanup of Temporary Directories
    certbot.service Certificate renewal
    man-db.service Daily man-db regeneration
    backup-etc.service Copy of /etc to the backup host
    node-exporter-textfile.service Metrics of packages and disks
    sysstat-collect.service system activity accounting tool""")
CRON = lines("""
    (root) CMD (   cd / && run-parts --report /etc/cron.hourly)
    (www-data) CMD (/usr/local/bin/warm-cache --site www --limit 200 >/dev/null 2>&1)
    (postgres) CMD (/usr/local/bin/wal-archive --check)
    (root) CMD (/usr/local/sbin/check-raid -q)
    (deploy) CMD (flock -n /run/lock/sitemap /srv/shop/bin/sitemap --quiet)
    (root) CMD (command -v debian-sa1 > /dev/null && debian-sa1 1 1)""")
HOST_CHORES = lines("""
    chronyd[612]: Selected source 10.20.0.{small} (time-{small}.internal)
    chronyd[612]: System clock wrong by 0.000{ms} seconds
    kernel: [{uptime}] TCP: request_sock_TCP: Possible SYN flooding on port 443. Sending cookies.
    kernel: [{uptime}] EXT4-fs (nvme0n1p2): re-mounted. Quota mode: none.
    kernel: [{uptime}] nvme nvme0: I/O {n} QID {small} timeout, completion polled
    kernel: [{uptime}] veth{hex7}: entered promiscuous mode
    kernel: [{uptime}] br-{hex12}: port {small}(veth{hex7}) entered forwarding state
    containerd[733]: time="{stamp}" level=info msg="shim disconnected" id={hex12} namespace=moby
    rsyslogd[598]: [origin software="rsyslogd" swVersion="8.2312.0" x-pid="598" x-info="https://logs.example"] rsyslogd was HUPed
    smartd[655]: Device: /dev/nvme0, SMART/Health Information: Temperature {n} Celsius
    smartd[655]: Device: /dev/nvme0, Temperature changed {small} Celsius to {n} Celsius since last report
    systemd-resolved[501]: Using degraded feature set UDP instead of UDP+EDNS0 for DNS server 10.20.0.{small}.
    postfix/smtpd[{pid}]: connect from unknown[{ip}]
    postfix/smtpd[{pid}]: lost connection after AUTH from unknown[{ip}]
    dockerd[801]: time="{stamp}" level=warning msg="healthcheck of {hex12} took {ms}ms"
    auditd[540]: Audit daemon rotating log files""")
