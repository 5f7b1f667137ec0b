"use strict";

// Tables: a click on a heading sorts by its column; a second one turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows].at(-1).cells;
  const original = [...body.rows];
  const valueOf = (row, column) => {
    const text = row.cells[column].dataset.value;
    if (text === undefined) return null;
    return text.trim() !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), undefined, { numeric: true });
  [...headings].forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const order = { none: 0, ascending: 1, descending: 2 }[heading.ariaSort];
      const numeric = original.some((row) => typeof valueOf(row, column) === "number");
      const cycle = numeric ? ["descending", "none", "ascending"] : ["ascending", "descending", "none"];
      const next = cycle[order];
      for (const other of headings) other.ariaSort = "none";
      heading.ariaSort = next;
      const sign = next === "ascending" ? 1 : -1;
      const rows = [...original];
      if (next !== "none") {
        rows.sort((a, b) => {
          const [x, y] = [valueOf(a, column), valueOf(b, column)];
          if (x === null || y === null) return (x === null) - (y === null); // undefined stays last
          return sign * compare(x, y);
        });
      }
      body.append(...rows);
    });
  });
}

// Galleries: by verdict and by type of defect.
for (const gallery of document.querySelectorAll(".gallery")) {
  const panels = [...gallery.querySelectorAll(".panel")];
  const buttons = [...gallery.querySelectorAll("[data-show]")];
  const select = gallery.querySelector("select");
  const output = gallery.querySelector("output");
  const everything = output.textContent;
  let verdict = "";
  const apply = () => {
    let shown = 0;
    for (const panel of panels) {
      const fits =
        (!verdict || panel.dataset.verdict === verdict) &&
        (!select.value || panel.dataset.defect === select.value);
      panel.hidden = !fits;
      shown += fits;
    }
    gallery.querySelector(".empty").hidden = shown > 0;
    output.textContent =
      shown === panels.length ? everything : `${shown} of these ${panels.length} panels`;
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      verdict = button.dataset.show;
      for (const other of buttons) other.ariaPressed = String(other === button);
      apply();
    });
  }
  select.addEventListener("change", apply);
}

// The reason for a missing value, for those who do not point at it with a mouse.
const reason = document.querySelector(".reason");
document.addEventListener("focusin", ({ target }) => {
  reason.hidden = !target.matches(".undefined");
  reason.textContent = reason.hidden ? "" : target.title;
});
document.addEventListener("focusout", () => (reason.hidden = true));

// A panel enlarged; the arrow keys go through those that the filter shows.
const dialog = document.querySelector("dialog");
let current = null;
function enlarge(panel) {
  current = panel;
  dialog.querySelector("p").replaceChildren(
    ...[...panel.querySelector("p").children].map((part) => part.cloneNode(true)),
  );
  const tiles = panel.querySelector(".tiles").cloneNode(true);
  dialog.querySelector(".tiles").replaceChildren(...tiles.children);
  if (!dialog.open) dialog.showModal();
}
function step(by) {
  const shown = [...current.parentElement.children].filter((panel) => !panel.hidden);
  const next = shown[shown.indexOf(current) + by];
  if (next) enlarge(next);
}
for (const panel of document.querySelectorAll(".panel")) {
  panel.querySelector("button").addEventListener("click", () => enlarge(panel));
}
for (const button of dialog.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => step(Number(button.dataset.step)));
}
dialog.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) step(by);
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
