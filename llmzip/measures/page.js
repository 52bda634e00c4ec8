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
    const facts = `${bits.toFixed(2)} bits \u00b7 ${chance(bits)}`;
    make("div", `${facts} \u00b7 rank ${number(data.ranks[n] + 1)} of ${number(data.vocabulary)}`, tip);
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
