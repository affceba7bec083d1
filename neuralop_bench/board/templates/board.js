"use strict";
(() => {
  const tables = [...document.querySelectorAll("table.board")];
  const sections = [...document.querySelectorAll("section.task")];
  const filter = document.getElementById("filter");
  const track = document.getElementById("track");
  const dataset = document.getElementById("dataset");
  const count = document.getElementById("count");
  const families = [...document.querySelectorAll("input.family")];
  const collator = new Intl.Collator("en", { numeric: true });

  // Empty cells come last, whichever way.
  function compare(one, other, direction) {
    if (one === "" || other === "") return one === other ? 0 : one === "" ? 1 : -1;
    const [a, b] = [Number(one), Number(other)];
    return direction * (Number.isNaN(a) || Number.isNaN(b) ? collator.compare(one, other) : a - b);
  }

  function key(row, index) {
    const cell = row.cells[index];
    return cell.dataset.sort || (cell.querySelector(".blank") ? "" : cell.textContent.trim());
  }

  function sort(table, head) {
    const index = head.cellIndex;
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row, index), row]);
    rows.sort((a, b) => compare(a[0], b[0], direction));
    body.append(...rows.map(([, row]) => row));
  }

  for (const table of tables) {
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => sort(table, head));
    }
  }

  function update() {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const section of sections) {
      const fits = (!track.value || section.dataset.track === track.value) && (!dataset.value || section.dataset.dataset === dataset.value);
      section.hidden = !fits;
      for (const row of section.querySelectorAll("table.board tbody tr")) {
        row.hidden = !row.dataset.name.includes(wanted);
        if (fits && !row.hidden) shown += 1;
      }
    }
    count.textContent = `${shown} row${shown === 1 ? "" : "s"} shown`;
  }

  function columns() {
    const visible = new Set(["always", ...families.filter((box) => box.checked).map((box) => box.value)]);
    for (const cell of document.querySelectorAll("[data-family]")) cell.hidden = !visible.has(cell.dataset.family);
  }

  for (const input of [filter, track, dataset]) input.addEventListener("input", update);
  for (const box of families) box.addEventListener("change", columns);
  const controls = document.querySelector(".controls");
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  update();
  columns();
})();
