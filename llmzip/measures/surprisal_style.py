"""The style and the script of the page of surprisal, as constants; they know the page's markup and nothing else.

The colours are one hue, from light to dark, or from dark to light on a dark screen, so that they can be told apart
by lightness alone; on each one its ink has a contrast of at least 5 to 1.
"""

from __future__ import annotations

LEVELS = (0.5, 1.5, 3.0, 5.0, 7.5, 10.0, 13.0, 16.0)
"""Bits at which the next colour begins; there is one colour more."""

_LIGHT = (
    ("#fefbfa", "#1c1917"), ("#fdece5", "#1c1917"), ("#fbdbcd", "#1c1917"), ("#f8c6b0", "#1c1917"),
    ("#f2aa8b", "#1c1917"), ("#e7885d", "#1c1917"), ("#af4803", "#ffffff"), ("#833401", "#ffffff"),
    ("#562001", "#ffffff"),
)  # fmt: skip
_DARK = (
    ("#1e1916", "#f0ebe4"), ("#322318", "#f0ebe4"), ("#452d1c", "#f0ebe4"), ("#5b3922", "#f0ebe4"),
    ("#744624", "#f0ebe4"), ("#8e5224", "#f0ebe4"), ("#e0843e", "#1a1410"), ("#f6a56d", "#1a1410"),
    ("#fed0b2", "#1a1410"),
)  # fmt: skip

BAR_STEPS = 20
"""Widths that the bars beside the lines have, 0 apart."""


def _colours(colours: tuple[tuple[str, str], ...]) -> str:
    return "".join(f".c{number}{{background:{back};color:{ink}}}" for number, (back, ink) in enumerate(colours))


_BARS = "".join(f".w{n}{{background-size:{100 * n // BAR_STEPS}% 100%}}" for n in range(BAR_STEPS + 1))

STYLE = (
    """
:root{color-scheme:light dark;--back:#fff;--ink:#1c1917;--soft:#6b625b;--line:#e7e2dd;--card:#faf7f4;--bar:#f3d9c8;
--accent:#c2570c}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
header,main,footer{max-width:76rem;margin:0 auto;padding:0 1.5rem}
h1{font-size:1.35rem;line-height:1.3;margin:1.6rem 0 .2rem;overflow-wrap:anywhere}
.about,.note,footer{color:var(--soft);margin:0 0 1rem}
.note{border-left:3px solid var(--accent);padding-left:.7rem;color:var(--ink)}
dl{display:flex;flex-wrap:wrap;gap:.6rem;margin:0 0 1.2rem}
dl div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.45rem .9rem;min-width:7rem}
dt{font-size:.78rem;color:var(--soft)}
dd{margin:0;font-size:1.2rem;font-variant-numeric:tabular-nums}
dd small{font-size:.78rem;color:var(--soft)}
figure{margin:0 0 1.2rem}
figcaption{font-size:.82rem;color:var(--soft);margin:0 0 .3rem}
svg{display:block;width:100%;height:64px;background:var(--card);border:1px solid var(--line);border-radius:8px;
cursor:pointer}
svg path{fill:var(--accent)}
.legend{display:flex;flex-wrap:wrap;align-items:center;list-style:none;margin:0;padding:0;font-size:.8rem}
.legend li{padding:.12rem .7rem;border:1px solid var(--line);border-left-width:0}
.legend li:first-child{border-left-width:1px;border-radius:6px 0 0 6px}
.legend li:last-child{border-radius:0 6px 6px 0}
.head,.row{display:grid;grid-template-columns:4rem 4.6rem 4.2rem minmax(0,1fr);column-gap:.6rem}
.head{position:sticky;top:0;background:var(--back);border-bottom:1px solid var(--line);color:var(--soft);
font-size:.78rem;padding:.35rem 0;z-index:1}
.head span:not(:last-child),.row b{text-align:right}
.row{content-visibility:auto;contain-intrinsic-size:auto 1.6em;font:14px/1.6 ui-monospace,Menlo,Consolas,monospace}
.row b{font-weight:400;font-size:12px;line-height:22px;color:var(--soft);user-select:none;padding:0 .3rem}
.row b[class]{background-image:linear-gradient(var(--bar),var(--bar));background-repeat:no-repeat;
background-position:right}
.row p{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;tab-size:4}
i{font-style:normal;border-radius:2px;padding:2px 0}
i:hover{outline:2px solid var(--accent);outline-offset:0}
s{text-decoration:none}
s::before{content:"\\21B5";opacity:.45;font-size:11px}
u{text-decoration:none;font-size:10px;border:1px solid;border-radius:3px;padding:0 2px;margin:0 1px;
vertical-align:1px;opacity:.85}
footer{font-size:.82rem;margin:1.5rem auto 4rem}
#tip{position:fixed;z-index:2;max-width:24rem;background:var(--back);border:1px solid var(--line);border-radius:8px;
box-shadow:0 6px 24px #0004;padding:.6rem .8rem;font-size:.84rem;pointer-events:none}
#tip h2{font:600 14px ui-monospace,Menlo,Consolas,monospace;margin:0;overflow-wrap:anywhere}
#tip div{color:var(--soft);margin-bottom:.3rem}
#tip table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin-bottom:.3rem}
#tip td{padding:0 .9rem 0 0}
#tip td:nth-child(2){font-family:ui-monospace,Menlo,Consolas,monospace;min-width:6rem}
#tip td:nth-child(3){text-align:right;padding:0}
#tip .own td{color:var(--accent);font-weight:600}
"""
    + _BARS
    + _colours(_LIGHT)
    + """
@media (prefers-color-scheme:dark){
:root{--back:#161311;--ink:#ece7e1;--soft:#a39a91;--line:#37302a;--card:#1f1a17;--bar:#57351d;--accent:#f09a55}
"""
    + _colours(_DARK)
    + """
}
@media (max-width:40rem){
header,main,footer{padding:0 .6rem}
.head,.row{grid-template-columns:2.6rem 3.4rem minmax(0,1fr)}
.head span:nth-child(3),.row b:nth-of-type(3){display:none}
}
"""
)

SCRIPT = """
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const kinds = {1: Uint8Array, 2: Uint16Array, 4: Uint32Array};
  const tip = $("tip"), rows = $("rows"), view = $("along");
  let data = null;

  // Everything about tokens is decoded at the first hover, so that the page opens at once.
  const load = () => {
    if (data) return data;
    data = JSON.parse($("data").textContent);
    for (const name of ["ids", "bits", "ranks", "likely", "likelyBits", "sizes"]) {
      const [width, text] = data[name], raw = atob(text), bytes = new Uint8Array(raw.length);
      for (let n = 0; n < raw.length; n++) bytes[n] = raw.charCodeAt(n);
      data[name] = new kinds[width](bytes.buffer);
    }
    data.starts = new Uint32Array(data.sizes.length + 1);
    data.sizes.forEach((size, n) => { data.starts[n + 1] = data.starts[n] + size; });
    return data;
  };
  const make = (name, text, parent) => {
    const made = document.createElement(name);
    made.textContent = text;
    parent.append(made);
    return made;
  };
  const number = (value) => value.toLocaleString("en");
  const chance = (bits) => {
    const p = 2 ** -bits;
    if (p >= 0.001) return `${(100 * p).toPrecision(p > 0.9995 ? 4 : 3)} %`;
    return `1 in ${number(Number((1 / p).toPrecision(3)))}`;
  };
  const token = (n) => {
    const bits = data.bits[n] / data.scale, own = data.ids[n], count = data.alternatives;
    make("h2", data.words[own], tip);
    const facts = `${bits.toFixed(2)} bits \\u00b7 ${chance(bits)}`;
    make("div", `${facts} \\u00b7 rank ${number(data.ranks[n] + 1)} of ${number(data.vocabulary)}`, tip);
    const table = make("table", "", tip);
    for (let k = n * count; k < (n + 1) * count; k++) {
      const line = make("tr", "", table);
      line.className = data.likely[k] === own ? "own" : "";
      make("td", k - n * count + 1, line);
      make("td", data.words[data.likely[k]], line);
      make("td", chance(data.likelyBits[k] / data.scale), line);
    }
  };
  const show = (cell) => {
    load();
    const row = cell.closest(".row");
    const unit = Number(row.dataset.u) + Array.prototype.indexOf.call(cell.parentNode.children, cell);
    const first = data.starts[unit], end = data.starts[unit + 1];
    tip.textContent = "";
    tip.style.left = tip.style.top = "0";
    if (end - first > 1) make("div", `One character of ${end - first} tokens`, tip);
    for (let n = first; n < Math.min(end, first + 4); n++) token(n);
    tip.hidden = false;
    const box = cell.getClientRects()[0], own = tip.getBoundingClientRect();
    const below = box.bottom + 8 + own.height < innerHeight;
    const most = document.documentElement.clientWidth - own.width - 8;
    tip.style.left = `${Math.max(8, Math.min(box.left, most))}px`;
    tip.style.top = `${Math.max(8, below ? box.bottom + 8 : box.top - own.height - 8)}px`;
  };
  const over = (event) => {
    const cell = event.target.closest ? event.target.closest("p i") : null;
    if (cell) show(cell);
    else tip.hidden = true;
  };
  rows.addEventListener("mouseover", over);
  rows.addEventListener("click", over);
  rows.addEventListener("mouseleave", () => { tip.hidden = true; });
  addEventListener("scroll", () => { tip.hidden = true; }, {passive: true});

  // A click on the picture of the whole text goes there.
  view.addEventListener("click", (event) => {
    const box = view.getBoundingClientRect(), all = rows.getElementsByClassName("row");
    const wanted = (event.clientX - box.left) / box.width * Number(view.dataset.bytes);
    let low = 0, high = all.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (Number(all[middle].dataset.b) <= wanted) low = middle;
      else high = middle - 1;
    }
    all[low].scrollIntoView({block: "center"});
  });
})();
"""
