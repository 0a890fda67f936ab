"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  root.classList.add("js");

  // Light and dark: the system's, until it is chosen here.
  const kept = (set) => { try { return set ? localStorage.setItem("theme", set) : localStorage.getItem("theme"); } catch { return null; } };
  if (kept()) root.dataset.theme = kept();
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    kept(root.dataset.theme);
  });

  // The table: sorted by a column, what has no value last; repeats stay below their group.
  const table = document.querySelector("table.runs");
  const bodies = all("tbody", table);
  const words = new Intl.Collator("en", { numeric: true });
  const valueOf = (body, key) => body.querySelector(`tr.group > [data-key="${CSS.escape(key)}"]`).dataset.sort;
  function compare(a, b, isWord, sign) {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    return sign * (isWord ? words.compare(a, b) : a - b);
  }
  for (const head of all("thead th", table)) {
    head.firstElementChild.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      all("thead th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const isWord = head.classList.contains("word") && head.dataset.key !== "seed";
      const key = head.dataset.key;
      table.append(...[...bodies].sort((a, b) => compare(valueOf(a, key), valueOf(b, key), isWord, up ? 1 : -1)));
    });
  }
  function open(body, opened) {
    body.classList.toggle("open", opened);
    body.querySelector(".open.script").setAttribute("aria-expanded", opened);
  }
  bodies.forEach((body) => body.querySelector(".open.script").addEventListener("click", () => open(body, !body.classList.contains("open"))));
  const openAll = document.getElementById("open-all");
  openAll.addEventListener("click", () => {
    const opened = openAll.getAttribute("aria-pressed") !== "true";
    openAll.setAttribute("aria-pressed", opened);
    bodies.forEach((body) => open(body, opened));
  });

  // Filters choose groups, everywhere on the page.
  const search = document.getElementById("search");
  const facets = all("[data-facet]");
  function matches(body) {
    const text = body.textContent.toLowerCase();
    if (!search.value.toLowerCase().split(/\s+/).every((word) => text.includes(word))) return false;
    return facets.every((facet) => {
      const wanted = all('[aria-pressed="true"]', facet).map((button) => button.dataset.value);
      const key = facet.dataset.facet;
      const has = key === "state" ? all("tr.run", body).map((row) => row.dataset.state) : [body.dataset[key]];
      return !wanted.length || wanted.some((value) => has.includes(value));
    });
  }
  function filter() {
    const shown = new Set(bodies.filter(matches).map((body) => body.dataset.group));
    all("[data-group]").forEach((element) => element.toggleAttribute("hidden", !shown.has(element.dataset.group)));
    document.getElementById("count").textContent = shown.size < bodies.length ? `${shown.size} of ${bodies.length}` : "";
  }
  search.addEventListener("input", filter);
  all("button", document.querySelector(".filters")).filter((button) => button.dataset.value !== undefined).forEach((button) =>
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
      filter();
    }));

  // The legend takes groups out of the pictures; a double click leaves one alone.
  const legend = all("[data-legend]");
  function draw() {
    const off = new Set(legend.filter((b) => b.getAttribute("aria-pressed") === "false").map((b) => b.dataset.legend));
    all("svg.chart [data-group]").forEach((g) => g.classList.toggle("off", off.has(g.dataset.group)));
  }
  legend.forEach((button) => {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
      draw();
    });
    button.addEventListener("dblclick", () => {
      const alone = legend.every((b) => b === button || b.getAttribute("aria-pressed") === "false");
      legend.forEach((b) => b.setAttribute("aria-pressed", alone || b === button));
      draw();
    });
  });

  // What a curve is at, where the pointer is.
  const tip = document.getElementById("tip");
  const labels = legend.map((button) => button.textContent.trim());
  const written = (value, places) => value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
  function nearest(points, x) {
    return points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
  }
  all(".curve .plot").forEach((plot) => {
    const svg = plot.querySelector("svg");
    const data = JSON.parse(plot.querySelector("script").textContent);
    const [low, high, start, end] = data.x;
    const rule = document.createElementNS("http://www.w3.org/2000/svg", "line");
    rule.setAttribute("class", "rule");
    const leave = () => { tip.hidden = true; rule.remove(); };
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const x = low + (((event.clientX - box.left) * scale - start) / (end - start)) * (high - low);
      const shown = data.lines.filter(([group]) => {
        const drawn = svg.querySelector(`[data-group="${group}"]`);
        return !drawn.classList.contains("off") && !drawn.hasAttribute("hidden");
      });
      if (!shown.length || x < low - (high - low) * 0.03) return leave();
      const at = nearest(shown.flatMap(([, points]) => points), x)[0];
      const rows = shown.map(([group, points]) => [group, nearest(points, at)]).filter(([, p]) => Math.abs(p[0] - at) < (high - low) * 0.02);
      rows.sort((a, b) => b[1][1] - a[1][1]);
      const place = start + ((at - low) / (high - low)) * (end - start);
      for (const [name, value] of [["x1", place], ["x2", place], ["y1", 12], ["y2", svg.viewBox.baseVal.height - 44]]) rule.setAttribute(name, value);
      svg.append(rule);
      const head = document.createElement("p");
      head.textContent = `${Math.round(at).toLocaleString("en")} images`;
      const list = document.createElement("table");
      const places = Math.min(8, Math.max(0, 3 - Math.floor(Math.log10(Math.max(...rows.map(([, p]) => Math.abs(p[1])), 1e-6)))));
      for (const [group, point] of rows) {
        const row = list.insertRow();
        const name = row.insertCell();
        name.append(legend[group].querySelector("svg").cloneNode(true), labels[group]);
        row.insertCell().textContent = written(point[1], places);
        row.insertCell().textContent = point[2] === null ? "" : `± ${written(point[2], places)}`;
      }
      tip.replaceChildren(head, list);
      tip.hidden = false;
      const right = event.clientX + 16 + tip.offsetWidth < innerWidth;
      tip.style.left = `${Math.max(8, right ? event.clientX + 16 : event.clientX - 16 - tip.offsetWidth)}px`;
      tip.style.top = `${Math.max(8, Math.min(event.clientY + 12, innerHeight - tip.offsetHeight - 8))}px`;
    });
  });

  // A grid, large.
  const large = document.getElementById("large");
  all(".samples img").forEach((image) => image.addEventListener("click", () => {
    large.firstElementChild.src = image.src;
    large.firstElementChild.alt = image.alt;
    large.showModal();
  }));
  large.addEventListener("click", () => large.close());

  // A link to a run opens it.
  const reveal = () => {
    const target = location.hash.startsWith("#run-") && document.getElementById(location.hash.slice(1));
    if (target) target.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
