"use strict";
// What the page does beyond showing: sort, search, copy, values under the pointer, one run at a time, folds in print.
// Without it everything is there to read.
document.documentElement.classList.add("script");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const data = (id) => JSON.parse(document.getElementById(id)?.textContent || "{}");

// --- tables sort by any column ---------------------------------------------------------------------------------------

/** The number that a text begins with ("−0.52 to …", "< 0.001", "1,234", "18 of 20"); null where there is none. */
function number(text) {
  const found = /^[<±]? ?([+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)/.exec(text.replace(/−/g, "-"));
  return found ? Number(found[1].replace(/,/g, "")) : null;
}

// A column of words may hold counts ("18 of 20", "3 diverged"); the names of runs begin with digits and are none.
const counts = /^(—|[\d,]+( .*)?)$/;

/** Which of two stands first; cells without a number stand last, whichever way the others are turned. */
function compare(a, b, rising) {
  if (a === null || b === null) return (a === null) - (b === null);
  return (a < b ? -1 : a > b ? 1 : 0) * (rising ? 1 : -1);
}

for (const th of all("table.data th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...th.childNodes);
  th.append(button);
  button.addEventListener("click", () => {
    const rising = th.getAttribute("aria-sort") !== "ascending";
    all("th", th.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
    th.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const body = th.closest("table").tBodies[0];
    const texts = [...body.rows].map((row) => row.cells[th.cellIndex].textContent.trim());
    const numbers = th.classList.contains("number") || texts.every((text) => counts.test(text));
    const keyed = [...body.rows].map((row, k) => [numbers ? number(texts[k]) : texts[k], row]);
    keyed.sort(([a], [b]) => compare(a, b, rising));
    body.append(...keyed.map(([, row]) => row));
  });
}

// --- search: rows that hold the words, and the parts that hold such rows or figures -----------------------------------

const search = document.getElementById("search");
search?.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const holds = (element) => words.every((word) => element.textContent.toLowerCase().includes(word));
  let count = 0;
  for (const table of all("table.data")) {
    const whole = holds(table.caption);
    for (const row of table.tBodies[0].rows) {
      row.hidden = !whole && !holds(row);
      count += words.length && !row.hidden ? 1 : 0;
    }
  }
  for (const part of all("main .part")) {
    const hit = all("tbody tr", part).some((row) => !row.hidden) || all("figcaption, p, dt, dd, h2", part).some(holds);
    part.hidden = words.length > 0 && !hit;
    if (words.length && hit) all("details", part).concat(part.matches("details") ? [part] : []).forEach((fold) => (fold.open = true));
  }
  document.getElementById("hits").textContent = words.length ? `${count} rows of tables` : "";
});

// --- copy ------------------------------------------------------------------------------------------------------------

const texts = data("texts");
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // A page opened from a file may have no clipboard of its own.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
for (const button of all("button[data-copy]")) {
  button.addEventListener("click", async () => {
    await copy(texts[button.dataset.copy]);
    const said = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = said), 1500);
  });
}

// --- values under the pointer ----------------------------------------------------------------------------------------

const shown = document.createElement("div");
shown.id = "value";
shown.hidden = true;
shown.setAttribute("aria-hidden", "true");
document.body.append(shown);
for (const title of all(".picture svg title")) {
  const mark = title.parentNode;
  if (mark.tagName === "svg") continue;
  const text = title.textContent;
  mark.classList.add("told");
  title.remove();
  mark.addEventListener("pointerenter", (event) => {
    shown.textContent = text;
    shown.hidden = false;
    shown.style.left = `${Math.min(event.clientX + 12, innerWidth - shown.offsetWidth - 8)}px`;
    shown.style.top = `${event.clientY > 60 ? event.clientY - 38 : event.clientY + 18}px`;
  });
  mark.addEventListener("pointerleave", () => (shown.hidden = true));
}

// --- one run ---------------------------------------------------------------------------------------------------------

const runs = data("runs");
const panel = document.getElementById("run");
const svg = (name, attributes, text = "") => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, v]) => element.setAttribute(key, v));
  element.textContent = text;
  return element;
};

/** Errors in per cent after each epoch, on a logarithmic axis. */
function curves(run) {
  const [left, right, top, bottom] = [46, 470, 12, 168];
  const lines = Object.entries(run.curves).map(([name, values]) => [name, values.map((a) => Math.max(100 * (1 - a), 0.01))]);
  const every = lines.flatMap(([, values]) => values);
  const [low, high] = [Math.log10(Math.min(...every) / 1.1), Math.log10(Math.max(...every) * 1.1)];
  const last = Math.max(...lines.map(([, values]) => values.length));
  const x = (epoch) => left + ((right - left) * (epoch - 1)) / Math.max(1, last - 1);
  const y = (error) => bottom - ((bottom - top) * (Math.log10(error) - low)) / (high - low);
  const picture = svg("svg", { viewBox: "0 0 560 200", role: "img", "aria-label": "Error in per cent after each epoch" });
  for (const error of [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 90].filter((e) => Math.log10(e) >= low && Math.log10(e) <= high)) {
    picture.append(svg("line", { x1: left, x2: right, y1: y(error), y2: y(error), stroke: "currentColor", opacity: 0.15 }));
    picture.append(svg("text", { x: left - 6, y: y(error) + 4, "text-anchor": "end", "font-size": 12, fill: "currentColor" }, `${error}%`));
  }
  for (const epoch of [1, last]) picture.append(svg("text", { x: x(epoch), y: 186, "text-anchor": "middle", "font-size": 12, fill: "currentColor" }, `epoch ${epoch}`));
  lines.forEach(([name, values], k) => {
    const style = { fill: "none", stroke: "currentColor", "stroke-width": 1.8, "stroke-dasharray": ["none", "6 3", "2 3"][k] };
    picture.append(svg("polyline", { points: values.map((error, i) => `${x(i + 1)},${y(error)}`).join(" "), ...style }));
    picture.append(svg("line", { x1: right + 14, x2: right + 36, y1: 24 + 20 * k, y2: 24 + 20 * k, ...style }));
    picture.append(svg("text", { x: right + 42, y: 28 + 20 * k, "font-size": 12, fill: "currentColor" }, name));
  });
  return picture;
}

for (const button of all("button[data-run]")) {
  button.addEventListener("click", () => {
    const run = runs[button.dataset.run];
    const heading = document.createElement("h3");
    heading.textContent = `Run ${button.dataset.run}`;
    const facts = document.createElement("dl");
    facts.className = "facts";
    for (const [name, fact] of Object.entries(run.facts)) {
      const [term, words] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      words.textContent = fact;
      facts.append(term, words);
    }
    panel.replaceChildren(heading, ...(run.curves.test.length ? [curves(run)] : []), facts);
    for (const [name, address] of Object.entries(run.links)) {
      const link = document.createElement("a");
      link.href = address;
      link.textContent = name;
      link.rel = "noreferrer";
      panel.append(link, " ");
    }
    panel.hidden = false;
    panel.focus();
    panel.scrollIntoView({ block: "nearest" });
  });
}

// --- print opens what is folded --------------------------------------------------------------------------------------

let opened = [];
addEventListener("beforeprint", () => {
  opened = all("details:not([open])");
  opened.forEach((fold) => (fold.open = true));
});
addEventListener("afterprint", () => opened.forEach((fold) => (fold.open = false)));
