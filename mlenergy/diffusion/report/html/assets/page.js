"use strict";
// The report's page. All text from results goes through textContent or setAttribute: a prompt is never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.rows;
rows.forEach((row, index) => { row.id = index; });
const $ = (id) => document.getElementById(id);
const MOST_TICKED = 6, MOST_BARS = 12;
const STAGES = [["text_encode", "text encoding"], ["denoise", "denoising"], ["vae_decode", "VAE decoding"], ["other", "other"]];
const state = { sort: "s", up: true, page: 0, perPage: 25, open: null, ticked: [], log: true, group: 0, filters: {} };

// ---- small helpers -------------------------------------------------------------------------------------------------
function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}
function draw(name, attributes = {}, text = null) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  return node;
}
function figures(value) { // four significant digits; no exponent where people would not write one
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e9) return value.toExponential(3);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(4)));
}
const noun = (row) => (row.task === "text-to-video" ? "video" : "image");
const known = (value) => value !== null && value !== undefined;
const unique = (values) => [...new Set(values)];
const sizeOf = (row) => `${row.width}×${row.height}${row.frames ? ` × ${row.frames} frames` : ""}`;
const hardware = (row) => (row.on_gpu ? `${row.gpus} × ${row.gpu}` : `${row.gpus} ${row.gpus === 1 ? "process" : "processes"}, ${row.gpu}`);
function label(row) {
  const parts = [row.model, hardware(row), row.parallel, `batch ${row.batch}`, row.frames && sizeOf(row), row.options];
  return parts.filter(Boolean).join(", ");
}

// ---- the table -----------------------------------------------------------------------------------------------------
const withInterval = (value, half) => (row) => {
  const cell = el("td", { class: "number", text: figures(row[value]) });
  if (known(row[value]) && known(row[half])) cell.append(el("span", { class: "interval", text: ` ± ${figures(row[half])}` }));
  return cell;
};
const ofVideos = (row) => (row.frames ? el("td", { class: "number", text: figures(row.frames_per_s) }) : el("td", { class: "number", text: "–", title: "of videos alone" }));
// What the rows shown make: an image, a video, or both.
const each = () => { const made = unique(shown.map(noun)); return made.length === 1 ? made[0] : "image or video"; };
const article = (word) => `${word.startsWith("i") ? "an" : "a"} ${word}`;
const ALL_COLUMNS = [
  { key: "model", label: "Model", cell: modelCell },
  { key: "gpu", label: "Device" },
  { key: "gpus", label: "GPUs", title: "GPUs, or processes on a CPU", number: true,
    cell: (row) => el("td", { class: "number", text: row.on_gpu ? String(row.gpus) : `${row.gpus} (CPU)` }) },
  { key: "s", label: () => `Seconds ${article(each())}`, number: true, cell: withInterval("s", "s_ci") },
  { key: "j", label: () => `Joules ${article(each())}`, number: true, reason: "j_reason", cell: withInterval("j", "j_ci") },
  { key: "gb", label: "Gigabytes", title: "Peak memory of the fullest GPU, 10⁹ bytes", number: true, reason: "gb_reason" },
  { key: "ips", label: () => ({ image: "Images a second", video: "Videos a second" })[each()] || "Images or videos a second", number: true },
  { key: "frames_per_s", label: "Frames a second", number: true, video: true, cell: ofVideos },
  { key: "real_time", label: "Seconds a video second", title: "Seconds that one second of video takes", number: true, video: true },
  { key: "w", label: "Watts", title: "Mean power of all GPUs together", number: true },
  { key: "batch", label: "Batch", number: true },
  { key: "parallel", label: "Parallelism", wrap: true },
  { key: "pixels", label: "Size", value: (row) => row.width * row.height * (row.frames || 1),
    cell: (row) => el("td", { text: sizeOf(row) + (row.frames && row.fps ? ` at ${row.fps}/s` : "") }) },
  { key: "steps", label: "Steps", number: true },
  { key: "precision", label: "Precision" },
  { key: "options", label: "Optimizations", wrap: true },
  { key: "mfu", label: "MFU", number: true, cell: (row) => el("td", { class: "number", text: known(row.mfu) ? `${figures(100 * row.mfu)} %` : "–" }) },
  { key: "date", label: "Date", cell: (row) => el("td", { text: row.date ? row.date.slice(0, 10) : "–" }) },
];
const COLUMNS = ALL_COLUMNS.filter((column) => !column.video || rows.some((row) => row.frames && row.source === "measured"));
function modelCell(row) {
  const cell = el("td", { class: "model" });
  if (row.source === "measured") {
    cell.append(el("button", { type: "button", class: "openrun", "aria-expanded": String(state.open === row.id), text: row.model,
      "aria-label": `Details of ${label(row)}`, onclick: () => { state.open = state.open === row.id ? null : row.id; drawTable(); focusRun(row.id); } }));
  } else cell.append(row.model);
  if (row.source === "published") cell.append(el("span", { class: "tag", text: "published" }));
  if (row.random) cell.append(el("span", { class: "tag", text: "random weights" }));
  if (row.doubtful) cell.append(el("span", { class: "tag warn", text: "doubtful" }));
  if (row.warnings.length) {
    const words = row.warnings.length === 1 ? "1 warning" : `${row.warnings.length} warnings`;
    cell.append(el("span", { class: "tag warn", title: row.warnings.map((w) => w[1]).join("\n"), text: words }));
  }
  return cell;
}
function cellOf(column, row) {
  if (column.cell) {
    const cell = column.cell(row);
    if (column.reason && !known(row[column.key])) cell.title = row[column.reason] || "";
    return cell;
  }
  const value = row[column.key];
  const text = column.number ? figures(value) : value || "–";
  const reason = column.reason && !known(value) ? row[column.reason] : null;
  return el("td", { class: column.number ? "number" : column.wrap ? "wrap" : null, text, title: reason });
}
const FILTERS = [["task", "Task"], ["model", "Model"], ["gpu", "Device"], ["gpus", "GPUs"], ["batch", "Batch"], ["precision", "Precision"]];
const measuredModels = new Set(rows.filter((row) => row.source === "measured").map((row) => row.model));

function isShown(row) {
  const { filters } = state;
  if (row.source === "published") {
    if (filters.published === "none") return false;
    if (filters.published === "same" && !measuredModels.has(row.model)) return false;
  }
  for (const [key] of FILTERS) if (filters[key] && String(row[key]) !== filters[key]) return false;
  return (filters.words || []).every((word) => row.text.includes(word));
}
for (const row of rows) row.text = [label(row), row.name, row.precision, row.source, row.engine || ""].join(" ").toLowerCase();

function shownRows() {
  const column = COLUMNS.find((one) => one.key === state.sort);
  const value = column.value || ((row) => row[state.sort]);
  const sign = state.up ? 1 : -1;
  return rows.filter(isShown).sort((a, b) => {
    const x = value(a), y = value(b);
    if (!known(x) || !known(y)) return known(x) ? -1 : known(y) ? 1 : a.id - b.id; // what is not known comes last
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return sign * order || a.id - b.id;
  });
}
let shown = [];
function drawTable() {
  shown = shownRows();
  const pages = Math.max(1, Math.ceil(shown.length / state.perPage));
  state.page = Math.min(state.page, pages - 1);
  const part = shown.slice(state.page * state.perPage, (state.page + 1) * state.perPage);
  const head = el("tr", {}, el("th", { scope: "col" }, el("span", { text: "Show", title: "Power and images below" })));
  for (const column of COLUMNS) {
    const order = state.sort === column.key ? (state.up ? "ascending" : "descending") : null;
    head.append(el("th", { scope: "col", "aria-sort": order, class: column.number ? "number" : null, title: column.title },
      el("button", { type: "button", "data-sort": column.key, text: typeof column.label === "function" ? column.label() : column.label, onclick: () => sortBy(column.key) })));
  }
  $("table").tHead.replaceChildren(head);
  const body = document.createDocumentFragment();
  for (const row of part) {
    const tr = el("tr", { "data-run": row.id, class: [row.source, state.open === row.id ? "open" : ""].join(" ").trim() });
    const first = el("td");
    if (row.source === "measured") {
      first.append(el("input", { type: "checkbox", "aria-label": `Show power and images of ${label(row)}`,
        checked: state.ticked.includes(row.id), onchange: (event) => tick(row.id, event.target.checked) }));
    }
    tr.append(first, ...COLUMNS.map((column) => cellOf(column, row)));
    body.append(tr);
    if (state.open === row.id) body.append(detailOf(row));
  }
  $("table").tBodies[0].replaceChildren(body);
  const measured = shown.filter((row) => row.source === "measured").length;
  const published = shown.length - measured;
  $("count").textContent = `${measured} measured ${measured === 1 ? "run" : "runs"}` +
    (published ? ` and ${published} published` : "") + ` of ${rows.length} rows`;
  drawPages(pages);
}
function drawPages(pages) {
  const go = (step) => { state.page += step; refresh(); $("leaderboard").scrollIntoView(); };
  const sizes = [25, 100, 500];
  $("pages").replaceChildren(...(shown.length <= sizes[0] ? [] : [
    el("button", { type: "button", text: "Previous", disabled: state.page === 0, onclick: () => go(-1) }),
    el("span", { text: `Page ${state.page + 1} of ${pages}` }),
    el("button", { type: "button", text: "Next", disabled: state.page === pages - 1, onclick: () => go(1) }),
    el("label", {}, "Rows a page ", el("select", { id: "per-page", onchange: (event) => { state.perPage = Number(event.target.value); state.page = 0; refresh(); $("per-page").focus(); } },
      ...sizes.map((size) => el("option", { value: size, selected: size === state.perPage, text: String(size) })))),
  ]));
}
function sortBy(key) {
  state.up = state.sort === key ? !state.up : true;
  state.sort = key;
  state.page = 0;
  refresh();
  document.querySelector(`[data-sort="${key}"]`).focus();
}
function focusRun(id) {
  const button = document.querySelector(`[data-run="${id}"] .openrun`);
  if (button) button.focus();
}
function openRun(id) {
  const place = shown.findIndex((row) => row.id === id);
  if (place < 0) return;
  state.page = Math.floor(place / state.perPage);
  if (rows[id].source === "measured") state.open = id;
  refresh();
  const tr = document.querySelector(`[data-run="${id}"]`);
  tr.scrollIntoView({ block: "center" });
  focusRun(id);
}
function detailOf(row) {
  const details = data.details[row.details];
  const box = el("div");
  if (row.warnings.length) {
    box.append(el("strong", { text: "Warnings" }),
      el("ul", { class: "warnings" }, ...row.warnings.map((w) => el("li", { text: `${w[1]} (${w[0]})` }))));
  }
  if (details.command) {
    const copy = el("button", { type: "button", text: "Copy the command", onclick: () => copyText(details.command, copy) });
    box.append(el("strong", { text: "Command" }), el("pre", { text: details.command }), copy);
  }
  const list = el("dl");
  const windows = row.windows === 1 ? "1 window" : `${row.windows} windows`;
  const facts = [["folder", row.folder], ["date", row.date], ["measured", `${windows}, ${figures(row.latency)} s each on average`],
    ["seed", row.seed], ["engine", row.engine], ["quality", row.quality], ["energy", row.energy_source && row.energy_source !== "none" ? row.energy_source : row.j_reason],
    ...data.environments[details.environment]];
  for (const [name, value] of facts) if (known(value)) list.append(el("dt", { text: name }), el("dd", { text: String(value) }));
  box.append(list);
  return el("tr", { class: "detail" }, el("td", { colspan: COLUMNS.length + 1 }, box));
}
async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page opened from a file may not use the clipboard by that way
    const area = el("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy the command"; }, 2000);
}
function tick(id, on) {
  state.ticked = state.ticked.filter((one) => one !== id);
  if (on) state.ticked.push(id);
  while (state.ticked.length > MOST_TICKED) {
    const dropped = state.ticked.shift();
    const box = document.querySelector(`[data-run="${dropped}"] input`);
    if (box) box.checked = false;
  }
  drawTicked();
}

// ---- filters -------------------------------------------------------------------------------------------------------
function drawFilters() {
  const form = $("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.append(el("label", {}, "Search", el("input", { type: "search", id: "search", oninput: (event) => {
    state.filters.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    changed();
  } })));
  for (const [key, title] of FILTERS) {
    const values = unique(rows.map((row) => row[key]).filter(known)).sort((a, b) =>
      (typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true })));
    const select = el("select", { id: `filter-${key}`, onchange: (event) => { state.filters[key] = event.target.value; changed(); } },
      el("option", { value: "", text: "all" }), ...values.map((value) => el("option", { value: String(value), text: String(value) })));
    form.append(el("label", {}, title, select));
  }
  // Published videos do not stand beside measured images unless one asks for them.
  const tasks = unique(rows.filter((row) => row.source === "measured").map((row) => row.task));
  if (tasks.length === 1) { state.filters.task = tasks[0]; $("filter-task").value = tasks[0]; }
  if (rows.some((row) => row.source === "published")) {
    const choices = [["same", "for the same models"], ["all", "all"], ["none", "none"]];
    const initial = rows.some((row) => row.source === "published" && measuredModels.has(row.model)) ? "same" : "all";
    state.filters.published = initial;
    form.append(el("label", {}, "Published figures", el("select", { id: "filter-published",
      onchange: (event) => { state.filters.published = event.target.value; changed(); } },
      ...choices.map(([value, text]) => el("option", { value, text, selected: value === initial })))));
  }
  form.append(el("button", { type: "button", id: "clear", text: "Clear filters", onclick: () => {
    for (const [key] of FILTERS) { state.filters[key] = ""; $(`filter-${key}`).value = ""; }
    state.filters.words = [];
    $("search").value = "";
    changed();
  } }));
}
function changed() { state.page = 0; refresh(); }

// ---- charts --------------------------------------------------------------------------------------------------------
const WIDTH = 1040;
function scale(low, high, from, to, log) {
  if (log) { const a = Math.log10(low), b = Math.log10(high); return (v) => from + (to - from) * ((Math.log10(v) - a) / (b - a || 1)); }
  return (v) => from + (to - from) * ((v - low) / (high - low || 1));
}
function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      for (const m of [1, 2, 5]) { const v = m * 10 ** e; if (v >= low * 0.999 && v <= high * 1.001) found.push(v); }
    }
    const tens = found.filter((v) => Math.abs(Math.log10(v) % 1) < 1e-9);
    return found.length > 9 && tens.length > 1 ? tens : found;
  }
  const raw = (high - low) / 5 || 1, ten = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * ten).find((v) => v >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(Number(v.toPrecision(10)));
  return found;
}
function frame(title, xLabel, yLabel, height, x, y) {
  // x and y: {low, high, log, ticks?}. Returns the drawing and its two scales.
  const box = { left: 88, right: WIDTH - 16, top: 12, bottom: height - 48 };
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${height}`, width: WIDTH, role: "group", "aria-label": title });
  const sx = scale(x.low, x.high, box.left, box.right, x.log), sy = scale(y.low, y.high, box.bottom, box.top, y.log);
  for (const v of x.ticks || ticks(x.low, x.high, x.log)) {
    svg.append(draw("line", { class: "gridline", x1: sx(v), x2: sx(v), y1: box.top, y2: box.bottom }),
      draw("text", { class: "soft", x: sx(v), y: box.bottom + 17, "text-anchor": "middle" }, figures(v)));
  }
  for (const v of ticks(y.low, y.high, y.log)) {
    svg.append(draw("line", { class: "gridline", x1: box.left, x2: box.right, y1: sy(v), y2: sy(v) }),
      draw("text", { class: "soft", x: box.left - 7, y: sy(v) + 4, "text-anchor": "end" }, figures(v)));
  }
  svg.append(draw("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    draw("line", { class: "axis", x1: box.left, x2: box.left, y1: box.top, y2: box.bottom }),
    draw("text", { x: (box.left + box.right) / 2, y: height - 10, "text-anchor": "middle" }, xLabel),
    draw("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(16 ${(box.top + box.bottom) / 2}) rotate(-90)` }, yLabel));
  return { svg, sx, sy, box };
}
function range(values, log) {
  const low = Math.min(...values), high = Math.max(...values);
  if (log) return { low: low / 1.25, high: high * 1.25, log };
  const space = (high - low || high || 1) * 0.06;
  return { low: Math.max(0, low - space), high: high + space, log };
}
function showTip(event, text) {
  const tip = $("tip");
  tip.textContent = text;
  tip.hidden = false;
  const x = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  const y = Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8);
  tip.style.left = `${Math.max(4, x)}px`;
  tip.style.top = `${Math.max(4, y)}px`;
}
const hideTip = () => { $("tip").hidden = true; };
function notice(text) { return el("p", { class: "notice", text }); }
function colours(models) { // the most frequent models have a colour of their own
  const counts = new Map();
  for (const model of models) counts.set(model, (counts.get(model) || 0) + 1);
  const ranked = [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).map(([model]) => model);
  return { own: ranked.slice(0, 7), of: (model) => { const k = ranked.indexOf(model); return `var(--c${k >= 0 && k < 7 ? k : 7})`; }, others: ranked.length > 7 };
}
function front(points) { // those that no other point beats in both
  const sorted = [...points].sort((a, b) => a.s - b.s || a.j - b.j);
  let best = Infinity;
  return sorted.filter((row) => { if (row.j < best) { best = row.j; return true; } return false; });
}
function mark(row, x, y, colour) {
  const common = { "data-point": row.id };
  if (row.doubtful) return draw("path", { ...common, d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8`, stroke: "var(--warn)", "stroke-width": 2, fill: "none" });
  if (row.source === "published") return draw("path", { ...common, d: `M${x} ${y - 5}l5 5l-5 5l-5 -5z`, stroke: colour, "stroke-width": 1.4, fill: "var(--paper)" });
  return draw("circle", { ...common, cx: x, cy: y, r: 5, fill: colour, stroke: "var(--paper)" });
}
function drawPareto() {
  const target = $("pareto-chart");
  const points = shown.filter((row) => known(row.s) && known(row.j) && row.s > 0 && row.j > 0);
  if (!points.length) {
    const reason = shown.find((row) => row.j_reason);
    target.replaceChildren(notice(shown.length ? `None of the runs shown has both seconds and joules${reason ? `: ${reason.j_reason}` : ""}.` : "No run is shown."));
    return;
  }
  const nouns = unique(points.map(noun)).join(" or ");
  const { svg, sx, sy } = frame("Seconds against joules", `seconds per ${nouns}`, `joules per ${nouns}`, 460,
    range(points.map((row) => row.s), state.log), range(points.map((row) => row.j), state.log));
  const paint = colours(points.map((row) => row.model));
  const onFront = new Set();
  for (const task of unique(points.map((row) => row.task))) { // an image and a video do not compete
    const best = front(points.filter((row) => row.task === task && !row.doubtful));
    const line = best.map((row, k) => `${k ? `H${sx(row.s)}V` : `M${sx(row.s)} `}${sy(row.j)}`).join("");
    if (best.length > 1) svg.append(draw("path", { class: "front", d: line }));
    best.forEach((row) => onFront.add(row.id));
  }
  for (const row of [...points].sort((a, b) => (a.source === b.source ? 0 : a.source === "published" ? -1 : 1))) {
    const point = mark(row, sx(row.s), sy(row.j), paint.of(row.model));
    if (onFront.has(row.id)) {
      point.setAttribute("tabindex", "0");
      point.setAttribute("role", "button");
      point.setAttribute("aria-label", pointText(row));
    }
    svg.append(point);
  }
  const of = (event) => { const id = event.target.getAttribute && event.target.getAttribute("data-point"); return id === null ? null : rows[Number(id)]; };
  svg.addEventListener("pointermove", (event) => { const row = of(event); if (row) showTip(event, pointText(row)); else hideTip(); });
  svg.addEventListener("pointerleave", hideTip);
  svg.addEventListener("click", (event) => { const row = of(event); if (row) { hideTip(); openRun(row.id); } });
  svg.addEventListener("keydown", (event) => { const row = of(event); if (row && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); openRun(row.id); } });
  const legend = el("div", { class: "legend" });
  const key = (shape, text) => { const icon = draw("svg", { width: 14, height: 14, viewBox: "0 0 14 14", "aria-hidden": "true" }); icon.append(shape); legend.append(el("span", {}, icon, text)); };
  for (const model of paint.own) key(mark({ id: "", source: "measured" }, 7, 7, paint.of(model)), model);
  if (paint.others) key(mark({ id: "", source: "measured" }, 7, 7, "var(--c7)"), "other models");
  if (points.some((row) => row.source === "published")) key(mark({ id: "", source: "published" }, 7, 7, "var(--soft)"), `published (${data.published_source})`);
  if (points.some((row) => row.doubtful)) key(mark({ id: "", doubtful: true }, 7, 7), "doubtful: not on the front");
  target.replaceChildren(svg, legend);
}
function pointText(row) {
  const numbers = `${figures(row.s)} s, ${figures(row.j)} J per ${noun(row)}`;
  const doubts = row.warnings.map((w) => `\n${w[1]}`).join("");
  return `${label(row)}\n${numbers}${row.source === "published" ? "\npublished, not measured here" : ""}${doubts}`;
}
function scalingGroups() {
  const groups = new Map();
  for (const row of shown) {
    if (row.doubtful) continue;
    const key = JSON.stringify([row.source, row.task, row.model, row.gpu, row.batch, row.width, row.height, row.frames, row.steps, row.precision, row.options, row.engine]);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  const found = [];
  for (const members of groups.values()) {
    const best = new Map();
    for (const row of members) if (!best.has(row.gpus) || row.latency < best.get(row.gpus).latency) best.set(row.gpus, row);
    if (best.size > 1) found.push([...best.values()].sort((a, b) => a.gpus - b.gpus));
  }
  return found.sort((a, b) => (a[0].source === b[0].source ? b.length - a.length : a[0].source === "measured" ? -1 : 1));
}
function drawScaling() {
  const groups = scalingGroups();
  if (!groups.length) {
    $("scaling-controls").replaceChildren();
    $("scaling-table").replaceChildren();
    $("scaling-chart").replaceChildren(notice("No two runs shown differ only in their number of GPUs."));
    return;
  }
  state.group = Math.min(state.group, groups.length - 1);
  const name = (group) => { const row = group[0]; return [row.model, row.gpu, `batch ${row.batch}`, sizeOf(row), `${row.steps} steps`, row.precision, row.options, row.source === "published" ? "published" : ""].filter(Boolean).join(", "); };
  $("scaling-controls").replaceChildren(el("label", {}, "Set-up", el("select", { id: "scaling-group", onchange: (event) => { state.group = Number(event.target.value); drawScaling(); $("scaling-group").focus(); } },
    ...groups.map((group, k) => el("option", { value: k, selected: k === state.group, text: name(group) })))));
  const group = groups[state.group], base = group[0];
  const unit = base.on_gpu ? "GPUs" : "CPU processes";
  const points = group.map((row) => {
    const speedup = base.latency / row.latency, ideal = row.gpus / base.gpus;
    return { row, speedup, ideal, efficiency: speedup / ideal };
  });
  const most = Math.max(...points.map((p) => Math.max(p.speedup, p.ideal)));
  const { svg, sx, sy } = frame(`Speed-up over ${unit}`, unit, `speed-up over ${base.gpus}`, 340,
    { low: base.gpus, high: points.at(-1).row.gpus, ticks: points.map((p) => p.row.gpus) }, { low: 0, high: most * 1.08 });
  svg.append(draw("path", { class: "ideal", d: points.map((p, k) => `${k ? "L" : "M"}${sx(p.row.gpus)} ${sy(p.ideal)}`).join("") }),
    draw("path", { class: "series", stroke: "var(--c0)", d: points.map((p, k) => `${k ? "L" : "M"}${sx(p.row.gpus)} ${sy(p.speedup)}`).join("") }));
  const last = points.at(-1);
  svg.append(draw("text", { class: "soft", x: sx(last.row.gpus) - 8, y: sy(last.ideal) + 4, "text-anchor": "end" }, "ideal"));
  for (const p of points) svg.append(mark(p.row, sx(p.row.gpus), sy(p.speedup), "var(--c0)"));
  svg.addEventListener("pointermove", (event) => {
    const id = event.target.getAttribute("data-point"), p = points.find((one) => String(one.row.id) === id);
    if (p) showTip(event, `${label(p.row)}\nspeed-up ${figures(p.speedup)}, efficiency ${figures(100 * p.efficiency)} %`); else hideTip();
  });
  svg.addEventListener("pointerleave", hideTip);
  $("scaling-chart").replaceChildren(svg);
  const head = [unit, "Parallelism", "Seconds a batch", "Speed-up", "Efficiency", `Joules ${article(noun(base))}`];
  $("scaling-table").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...head.map((text, k) => el("th", { scope: "col", class: k === 1 ? null : "number", text })))),
    el("tbody", {}, ...points.map((p) => el("tr", {}, el("td", { class: "number", text: String(p.row.gpus) }), el("td", { text: p.row.parallel || "–" }),
      ...[figures(p.row.latency), figures(p.speedup), `${figures(100 * p.efficiency)} %`, figures(p.row.j)].map((text) => el("td", { class: "number", text })))))));
}
function drawStages() {
  const bars = shown.filter((row) => row.stages || row.stage_energy).slice(0, MOST_BARS);
  $("stages-legend").replaceChildren(...STAGES.map(([, text], k) => {
    const icon = draw("svg", { width: 12, height: 12, "aria-hidden": "true" });
    icon.append(draw("rect", { width: 12, height: 12, fill: `var(--c${k})` }));
    return el("span", {}, icon, text);
  }));
  stageBars($("stages-time"), bars.filter((row) => row.stages), "stages", "s", "Seconds of an iteration", "No run shown has times of its stages.");
  stageBars($("stages-energy"), bars.filter((row) => row.stage_energy), "stage_energy", "J", "Joules of an iteration",
    `No run shown has joules of its stages${bars.length ? `: ${bars[0].stage_energy_reason}` : ""}.`);
}
function stageBars(target, bars, key, unit, title, nothing) {
  if (!bars.length) { target.replaceChildren(el("figcaption", { text: title }), notice(nothing)); return; }
  const width = 560, row = 40, totals = bars.map((one) => STAGES.reduce((sum, [stage]) => sum + (one[key][stage] || 0), 0));
  const most = Math.max(...totals), space = 90;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${bars.length * row + 4}`, width, role: "img", "aria-label": title });
  bars.forEach((one, k) => {
    const top = k * row;
    svg.append(draw("text", { x: 0, y: top + 13 }, shorten(label(one), 84)));
    let x = 0;
    STAGES.forEach(([stage, text], colour) => {
      const value = one[key][stage] || 0, wide = (width - space) * value / most;
      const part = draw("rect", { x, y: top + 18, width: wide, height: 14, fill: `var(--c${colour})` });
      part.append(draw("title", {}, `${label(one)}\n${text}: ${figures(value)} ${unit} (${figures(100 * value / totals[k])} %)`));
      svg.append(part);
      x += wide;
    });
    svg.append(draw("text", { class: "soft", x: x + 6, y: top + 30 }, `${figures(totals[k])} ${unit}`));
  });
  target.replaceChildren(el("figcaption", { text: title }), svg);
}
const shorten = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
function drawPower(ticked) {
  const without = ticked.filter((row) => !row.timeline);
  const charts = ticked.filter((row) => row.timeline).map((row) => {
    const line = row.timeline;
    const { svg, sx, sy, box } = frame(`Power of ${label(row)}`, "seconds since the first window began", "watts", 260,
      { ...range(line.time_s.flat(), false), low: Math.min(...line.time_s.flat()) }, { low: 0, high: 1.05 * Math.max(...line.power_w.flat()) });
    const shade = line.windows.map(([from, to]) => draw("rect", { class: "window", x: sx(from), y: box.top, width: Math.max(1, sx(to) - sx(from)), height: box.bottom - box.top }));
    svg.prepend(...shade);
    const legend = el("div", { class: "legend" });
    line.gpus.forEach((gpu, k) => {
      const d = line.time_s[k].map((t, n) => `${n ? "L" : "M"}${sx(t).toFixed(1)} ${sy(line.power_w[k][n]).toFixed(1)}`).join("");
      svg.append(draw("path", { class: "series", stroke: `var(--c${k % 8})`, d }));
      const icon = draw("svg", { width: 14, height: 10, "aria-hidden": "true" });
      icon.append(draw("line", { x1: 0, x2: 14, y1: 5, y2: 5, stroke: `var(--c${k % 8})`, "stroke-width": 3 }));
      legend.append(el("span", {}, icon, gpu));
    });
    return el("figure", {}, el("figcaption", { text: label(row) }), svg, legend);
  });
  for (const row of without) charts.push(notice(`${label(row)}: ${row.timeline_reason}`));
  $("power-charts").replaceChildren(...(charts.length ? charts : [notice("Tick a run in the table.")]));
}
function drawImages(ticked) {
  const with_images = ticked.filter((row) => row.images && row.images.length);
  if (!with_images.length) {
    $("image-grid").replaceChildren(notice(ticked.length ? "The ticked runs have no images or videos in this report." : "Tick a run in the table."));
    return;
  }
  const lines = new Map();
  with_images.forEach((row, column) => row.images.forEach(([prompt, seed, src, video]) => {
    const key = `${seed} ${prompt}`;
    if (!lines.has(key)) lines.set(key, { prompt: data.prompts[prompt], seed, cells: [] });
    lines.get(key).cells[column] = { src, video };
  }));
  const head = el("tr", {}, el("th", { scope: "col", text: "Prompt" }), ...with_images.map((row) => el("th", { scope: "col", text: label(row) })));
  const body = [...lines.values()].map((line) => el("tr", {},
    el("th", { scope: "row" }, el("div", { text: line.prompt }), el("span", { class: "interval", text: `seed ${line.seed}` })),
    ...with_images.map((_, column) => el("td", {}, line.cells[column] ? outputOf(line.cells[column], shorten(line.prompt, 80)) : "–"))));
  $("image-grid").replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
}
function outputOf({ src, video }, prompt) {
  if (!video) return el("img", { src, alt: `Image of: ${prompt}`, loading: "lazy" });
  if (video.href) return el("a", { href: video.href, class: "clip" }, el("img", { src, alt: `First frame of the video of: ${prompt}` }), "Open the video");
  const clip = el("video", { src: video.clip, poster: src, controls: true, loop: true, playsinline: true, preload: "metadata", "aria-label": `Video of: ${prompt}` });
  clip.muted = true; // there is no sound; a muted video may be started by a script
  return clip;
}
function drawTicked() {
  const ticked = state.ticked.map((id) => rows[id]);
  drawPower(ticked);
  drawImages(ticked);
}

// ---- the rest of the page ------------------------------------------------------------------------------------------
function drawProblems() {
  if (!data.problems.length) { $("problem-list").replaceChildren(el("p", { class: "note", text: "Nothing: every result below the folder is in the table." })); return; }
  $("problem-list").replaceChildren(el("ul", {}, ...data.problems.map(([path, reason]) => el("li", {}, el("code", { text: path }), `: ${reason}`))));
}
const THEMES = ["automatic", "light", "dark"];
function setTheme(theme) {
  if (theme === "automatic") document.documentElement.removeAttribute("data-theme"); else document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
  $("theme").dataset.now = theme;
}
$("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf($("theme").dataset.now) + 1) % 3]));
function refresh() { drawTable(); drawPareto(); drawScaling(); drawStages(); }

setTheme("automatic");
$("summary").textContent = data.summary;
$("source").textContent = data.footer;
$("footnote").textContent = "± is the half-width of the mean's 95 % confidence interval. A dash means not known; point at it for the reason.";
$("pareto-controls").append(el("label", { class: "inline" }, el("input", { type: "checkbox", id: "log", checked: true,
  onchange: (event) => { state.log = event.target.checked; drawPareto(); } }), "logarithmic axes"));
drawFilters();
state.ticked = rows.filter((row) => row.source === "measured" && (row.timeline || (row.images && row.images.length))).slice(0, 3).map((row) => row.id);
refresh();
drawTicked();
drawProblems();
