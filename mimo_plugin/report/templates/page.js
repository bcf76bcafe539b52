"use strict";
// Tables sort by a click on a header: the best first, the worst first, as before.
for (const table of document.querySelectorAll(".table table")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const bodies = [...table.tBodies].map((body) => [body, [...body.rows]]);
  const sort = (column, turn) => {
    const better = heads[column].dataset.better || "";
    const key = (row) => {
      const data = row.cells[column].querySelector("data");
      if (!data) return row.cells[column].textContent.trim();
      const value = Number(data.value);
      return better.startsWith("→") ? Math.abs(value - Number(better.slice(1))) : value;
    };
    const numbers = bodies.some(([, rows]) => rows.some((row) => row.cells[column]?.querySelector("data")));
    const falling = (better === "↑" || (!better && numbers)) === (turn === 1);
    heads.forEach((head, place) => {
      if (place !== column || !turn) head.setAttribute("aria-sort", "none");
      else head.setAttribute("aria-sort", better.startsWith("→") ? "other" : falling ? "descending" : "ascending");
    });
    for (const [body, rows] of bodies) {
      const sorted = rows.filter((row) => row.cells.length > column && row.cells[0].scope === "row");
      const values = new Map(sorted.map((row) => [row, key(row)]));
      const compare = (one, other) => {
        const [a, b] = [values.get(one), values.get(other)];
        // Cells without a value stay at the end.
        if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
        return (falling ? -1 : 1) * (typeof a === "number" ? a - b : a.localeCompare(b));
      };
      if (turn) sorted.sort(compare);
      body.append(...rows.filter((row) => !sorted.includes(row)), ...sorted);
    }
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    let turn = 0;
    button.addEventListener("click", () => {
      turn = head.getAttribute("aria-sort") === "none" ? 1 : (turn + 1) % 3;
      sort(column, turn);
    });
  });
}
// A table that is wider than a narrow screen becomes a card per row; elsewhere it scrolls, and says so.
for (const table of document.querySelectorAll(".table table")) {
  const rows = [...table.tHead.rows];
  const groups = rows.length > 1 ? [...rows[0].cells].flatMap((cell) => Array(cell.colSpan).fill(cell.textContent.trim())) : [];
  [...rows[rows.length - 1].cells].forEach((head, column) => {
    head.dataset.group = groups[column] || "";
    const label = `${head.dataset.group} ${head.querySelector("button").firstChild.textContent}`.trim();
    for (const body of table.tBodies) for (const row of body.rows) if (row.cells[column]) row.cells[column].dataset.label = label;
  });
}
const fit = (part) => {
  const boxes = [...part.querySelectorAll(".scroll")];
  for (const box of boxes) box.classList.remove("cards", "wider");
  // All are measured before any is changed: layout is slow.
  const wide = boxes.filter((box) => box.scrollWidth > box.clientWidth + 1);
  for (const box of wide) box.classList.add(innerWidth < 600 ? "cards" : "wider");
};
fit(document);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; fit(document); } });
for (const part of document.querySelectorAll("details")) part.addEventListener("toggle", () => fit(part));
for (const command of document.querySelectorAll(".command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const code = command.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  command.append(button);
}
// An address with the anchor of a topic opens it.
const unfold = () => {
  const place = location.hash.slice(1) && document.getElementById(location.hash.slice(1));
  for (let part = place; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  if (place) place.scrollIntoView();
};
addEventListener("hashchange", unfold);
if (location.hash) unfold();
const filter = document.querySelector(".filter");
if (filter) {
  const list = document.getElementById("list");
  const topics = [...list.children];
  const [search, language, order, found] = ["search", "language", "order", "found"].map((id) => document.getElementById(id));
  const texts = new Map(topics.map((topic) => [topic, topic.textContent.toLowerCase()]));
  for (const name of [...new Set(topics.map((topic) => topic.dataset.language))].sort()) language.add(new Option(name || "?", name || "?"));
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const sign = { gain: -1, loss: 1 }[order.value];
    const sorted = sign ? [...topics].sort((a, b) => sign * (a.dataset.difference - b.dataset.difference)) : topics;
    let count = 0;
    for (const topic of sorted) {
      const fits = (!language.value || (topic.dataset.language || "?") === language.value) && words.every((word) => texts.get(topic).includes(word));
      topic.hidden = !fits;
      count += fits;
    }
    list.append(...sorted);
    found.textContent = `${count} of ${topics.length}`;
  };
  for (const field of [search, language, order]) field.addEventListener("input", show);
  filter.hidden = false;
  show();
}
