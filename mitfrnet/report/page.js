"use strict";
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];

  // Which models are shown, in tables and in charts.

  const boxes = all("#models input");
  function choose() {
    const shown = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    for (const part of all("[data-model]")) {
      part.toggleAttribute("hidden", !shown.has(part.dataset.model));
    }
  }
  if (boxes.length) {
    document.getElementById("models").hidden = false;
    for (const box of boxes) box.addEventListener("change", choose);
    choose(); // a browser may remember what was chosen before
  }

  // Tables that sort: rising, falling, as printed.

  const next = { none: "ascending", ascending: "descending", descending: "none" };
  const number = /^[-+]?[\d,]*\.?\d+(?![\w.,/])/;
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));

  function sort(bodies, column, way) {
    const text = (row) => row.cells[column].textContent.trim();
    const defined = (row) => text(row) !== "" && !text(row).startsWith("–");
    const known = bodies.flatMap(({ rows }) => rows).filter(defined).map(text);
    const numeric = known.every((value) => number.test(value));
    const value = (row) =>
      (numeric ? Number(number.exec(text(row))[0].replaceAll(",", "")) : text(row));
    for (const { body, rows } of bodies) {
      const sorted = rows.filter(defined);
      if (way === "none") {
        body.append(...rows);
        continue;
      }
      sorted.sort((a, b) => (way === "ascending" ? 1 : -1) * compare(value(a), value(b)));
      body.append(...sorted, ...rows.filter((row) => !defined(row))); // undefined ones last
    }
  }

  for (const table of all("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const bodies = [...table.tBodies].map((body) => (
      { body, rows: [...body.rows].filter((row) => row.cells.length === heads.length) }));
    if (!bodies.some(({ rows }) => rows.length > 1)) continue;
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const way = next[head.getAttribute("aria-sort") ?? "none"];
        for (const other of heads) other.removeAttribute("aria-sort");
        if (way !== "none") head.setAttribute("aria-sort", way);
        sort(bodies, column, way);
      });
    });
  }
})();
