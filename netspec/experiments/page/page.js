"use strict";
// Everything that is shown comes from the element #data; texts are set as text, never as markup.
const D = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const many = D.runs.length > 1;
const dark = matchMedia("(prefers-color-scheme: dark)");
const CATEGORIES = ["#2f7fa3", "#d1662d", "#3d9a5f", "#9467bd", "#c2185b", "#8c6d46", "#1aa6a6", "#b0a01f", "#6b7785", "#e0559a"];
const state = { visible: D.runs.map(() => true), selected: -1, brush: {}, sort: null, filter: "" };
const redraw = [];

// --- small helpers

function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}
function svg(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}
function ink(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
function shown(value) {
  if (value == null) return "";
  if (typeof value !== "number") return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-4 ? value.toExponential(2) : String(+value.toPrecision(5));
}
function percent(value) { return value == null || isNaN(value) ? "" : (100 * value).toFixed(2) + " %"; }
function clock(seconds) {
  if (seconds == null) return "";
  if (seconds < 60) return seconds.toFixed(1) + " s";
  if (seconds < 3600) return (seconds / 60).toFixed(1) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}
const tip = document.getElementById("tip");
function say(text, x, y) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
  tip.style.top = Math.max(4, y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 14) + "px";
}
function hover(element, text) {
  element.addEventListener("pointermove", (event) => say(text(), event.clientX, event.clientY));
  element.addEventListener("pointerleave", () => say(""));
}

const main = document.getElementById("main"), nav = document.getElementById("nav");
function panel(id, title, ...children) {
  const made = el("section", { class: "panel", id, "aria-labelledby": id + "-title" }, el("h2", { id: id + "-title", text: title }), ...children);
  main.append(made);
  nav.append(el("a", { href: "#" + id, text: title }));
  return made;
}

// --- runs and their colours

const metricAt = D.outputs.indexOf(D.metric);
const scores = D.runs.map((run) => (metricAt < 0 ? null : run.outputs[metricAt]));
const finite = scores.filter((value) => value != null);
const worst = D.lower ? Math.max(...finite) : Math.min(...finite), top = D.lower ? Math.min(...finite) : Math.max(...finite);
const graded = D.runs.length > CATEGORIES.length;
const LIGHT = [[59, 28, 110], [40, 96, 160], [24, 140, 130], [92, 160, 50], [205, 150, 20]];
const DARK = [[150, 120, 235], [80, 150, 225], [50, 185, 170], [130, 205, 90], [250, 210, 80]];
function grade(share) {
  const stops = dark.matches ? DARK : LIGHT, at = Math.max(0, Math.min(1, share)) * (stops.length - 1);
  const i = Math.min(stops.length - 2, Math.floor(at)), f = at - i;
  return "rgb(" + stops[i].map((v, k) => Math.round(v + (stops[i + 1][k] - v) * f)).join(",") + ")";
}
function colour(i) {
  if (!graded) return CATEGORIES[i % CATEGORIES.length];
  if (scores[i] == null) return ink("--soft");
  return grade(top === worst ? 1 : (scores[i] - worst) / (top - worst));
}
function name(i) { return D.runs[i].name; }
function told(i) {
  const run = D.runs[i], lines = [run.name];
  D.columns.forEach((column, k) => { if (run.values[k] != null) lines.push(column + " = " + run.values[k]); });
  if (metricAt >= 0 && scores[i] != null) lines.push(D.metric + " " + shown(scores[i]));
  return lines.join("\n");
}

function choose(i, quiet) {
  state.selected = state.selected === i ? -1 : i;
  for (const draw of redraw) draw("select");
  const row = document.querySelector('tr[data-run="' + i + '"]');
  if (row && !quiet && state.selected >= 0) row.scrollIntoView({ block: "nearest" });
}

// --- filter: words, and conditions such as accuracy>0.9

const CONDITION = /^([^<>=!~\s]+)\s*(<=|>=|!=|==|=|<|>|~)\s*(.+)$/;
function valueOf(i, key) {
  const run = D.runs[i], column = D.columns.indexOf(key), output = D.outputs.indexOf(key);
  if (column >= 0) return run.values[column];
  if (output >= 0) return run.outputs[output];
  return { run: run.name, status: run.status, seed: run.seed, iteration: run.iteration, seconds: run.seconds }[key];
}
function meets(i, word) {
  const found = CONDITION.exec(word);
  if (!found) return JSON.stringify([D.runs[i].name, D.runs[i].status, D.runs[i].values]).toLowerCase().includes(word.toLowerCase());
  const own = valueOf(i, found[1]), wanted = found[3];
  if (own == null) return found[2] === "!=";
  if (found[2] === "~") return String(own).includes(wanted);
  const numeric = own !== "" && wanted !== "" && !isNaN(own) && !isNaN(wanted);
  const a = numeric ? +own : String(own), b = numeric ? +wanted : wanted;
  return { "<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b, "!=": a !== b, "=": a === b, "==": a === b }[found[2]];
}
function refilter() {
  const words = state.filter.split(/\s+/).filter(Boolean);
  state.visible = D.runs.map((_, i) => words.every((word) => meets(i, word)) && within(i));
  for (const draw of redraw) draw("filter");
}

// --- the head

document.title = D.title + " - netspec report";
document.getElementById("title").textContent = D.title;
document.getElementById("made").textContent = (many ? D.runs.length + " runs, " : "") + "made " + D.made + " by netspec " + D.version;
document.getElementById("foot").textContent = "One file, made by netspec; it asks for nothing from anywhere. Curves are drawn by uPlot 1.6.32 (MIT).";

function figures(pairs) {
  return el("div", { class: "figures" }, ...pairs.filter(([, value]) => value !== "" && value != null)
    .map(([label, value]) => el("div", {}, el("b", { text: value }), el("span", { text: label }))));
}
function again(run) {
  const button = el("button", { type: "button", text: "Copy", onclick: () => {
    navigator.clipboard?.writeText(run.again).then(() => { button.textContent = "Copied"; }, () => { button.textContent = "Select it, and copy"; });
  } });
  return el("div", { class: "again" }, el("pre", { tabindex: 0, text: run.again }), button);
}

if (many) {
  const over = D.runs.filter((run) => run.status === "done").length, best = scores.indexOf(top);
  const part = panel("summary", "Summary", figures([
    ["runs", D.runs.length], ["of them done", over], ["best " + D.metric, finite.length ? shown(top) : ""],
    ["seconds, all together", clock(D.runs.reduce((sum, run) => sum + (run.seconds || 0), 0))],
  ]));
  if (best >= 0) part.append(el("p", { class: "soft", text: "The best run again:" }), again(D.runs[best]));
  for (const note of D.notes) part.append(el("p", { class: "note", text: note }));
} else {
  const run = D.runs[0];
  const part = panel("summary", "Summary", figures([
    ["state", run.status], ["iterations", run.iteration], ...D.outputs.map((output, i) => ["test " + output, shown(run.outputs[i])]),
    ["of training", clock(run.seconds)], ["seed", run.seed],
  ]));
  if (run.reason) part.append(el("p", { class: "note", text: run.reason }));
  for (const note of [...D.detail.notes, ...D.notes]) part.append(el("p", { class: "note", text: note }));
  part.append(el("p", { class: "soft", text: "The same run again:" }), again(run));
}

// --- the table of runs

function runTable() {
  const columns = [
    { key: "run", value: (i) => name(i) }, { key: "status", value: (i) => D.runs[i].status },
    ...D.columns.map((key, k) => ({ key, value: (i) => D.runs[i].values[k] })),
    ...D.outputs.map((key, k) => ({ key, value: (i) => D.runs[i].outputs[k] })),
    { key: "seconds", value: (i) => D.runs[i].seconds }, { key: "iteration", value: (i) => D.runs[i].iteration },
    { key: "seed", value: (i) => D.runs[i].seed },
  ];
  for (const column of columns) {
    const all = D.runs.map((_, i) => column.value(i)).filter((value) => value != null && value !== "");
    column.numeric = all.length > 0 && all.every((value) => !isNaN(value));
  }
  const body = el("tbody"), heads = [];
  const head = el("tr", {}, ...columns.map((column, k) => {
    const th = el("th", { scope: "col", class: column.numeric ? "n" : false }, el("button", { type: "button", text: column.key, onclick: () => {
      const down = state.sort && state.sort.k === k ? !state.sort.down : column.numeric && !(column.key === D.metric && D.lower) && D.outputs.includes(column.key);
      state.sort = { k, down };
      fill();
    } }));
    heads.push(th);
    return th;
  }));
  const box = el("input", { type: "search", id: "filter", placeholder: D.metric ? "words, or " + D.metric + ">0.5" : "words", "aria-label": "Filter the runs", oninput: () => {
    state.filter = box.value;
    clearTimeout(box.timer);
    box.timer = setTimeout(refilter, 120);
  } });
  const count = el("span", { class: "soft", role: "status" }), more = el("div");
  const clear = el("button", { type: "button", text: "Show all", onclick: () => { box.value = state.filter = ""; state.brush = {}; refilter(); } });
  const tools = el("div", { class: "tools" }, el("label", {}, "Filter ", box), clear, count);
  if (graded && finite.length) {
    const bar = el("i", {});
    const paint = () => { bar.style.background = "linear-gradient(90deg," + [0, .25, .5, .75, 1].map(grade).join(",") + ")"; };
    redraw.push((why) => { if (why === "theme") paint(); });
    paint();
    tools.append(el("span", { class: "scale" }, shown(worst), bar, shown(top) + " " + D.metric));
  }
  const rows = D.runs.map((run, i) => {
    const cells = columns.map((column, k) => {
      const value = column.value(i), text = column.key === "seconds" ? shown(value == null ? null : +value.toFixed(2)) : typeof value === "number" ? shown(value) : value ?? "";
      const td = el("td", { class: (column.numeric ? "n " : "") + (column.key === "status" && run.status === "failed" ? "failed" : "") });
      if (k === 0) td.append(el("span", { class: "dot" }));
      td.append(text);
      if (column.key === "status" && run.reason) td.title = run.reason;
      return td;
    });
    return el("tr", { "data-run": i, tabindex: i ? -1 : 0, onclick: () => choose(i, true), onkeydown: (event) => {
      const seen = [...body.rows].filter((row) => !row.hidden), at = seen.indexOf(event.currentTarget);
      const to = { ArrowDown: seen[at + 1], ArrowUp: seen[at - 1], Home: seen[0], End: seen[seen.length - 1] }[event.key];
      if (to) { event.preventDefault(); event.currentTarget.tabIndex = -1; to.tabIndex = 0; to.focus(); }
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(i, true); }
    } }, ...cells);
  });
  function fill() {
    const order = D.runs.map((_, i) => i);
    if (state.sort) {
      const { k, down } = state.sort, column = columns[k];
      order.sort((a, b) => {
        const x = column.value(a), y = column.value(b);
        if (x == null || y == null) return (x == null) - (y == null);
        const less = column.numeric ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
        return down ? -less : less;
      });
    }
    heads.forEach((th, k) => {
      if (state.sort && state.sort.k === k) th.setAttribute("aria-sort", state.sort.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
    body.append(...order.map((i) => rows[i]));
    update();
  }
  function update() {
    rows.forEach((row, i) => {
      row.hidden = !state.visible[i];
      row.setAttribute("aria-selected", state.selected === i);
      row.querySelector(".dot").style.background = colour(i);
    });
    const seen = state.visible.filter(Boolean).length;
    count.textContent = seen === D.runs.length ? D.runs.length + " runs" : seen + " of " + D.runs.length + " runs";
    more.replaceChildren();
    if (state.selected >= 0) {
      const run = D.runs[state.selected];
      more.append(el("p", { class: "soft", text: run.name + (run.reason ? ": " + run.reason : "") + "; again:" }), again(run));
    }
  }
  redraw.push(update);
  const at = columns.findIndex((column) => column.key === D.metric);
  if (at >= 0) state.sort = { k: at, down: !D.lower };
  panel("runs", "Runs", tools, el("div", { class: "scroll" }, el("table", { class: "runs" }, el("thead", {}, head), body)),
    el("p", { class: "soft", text: "Columns are the settings that differ, and the last test. Enter or a click shows a run in all charts, and the command that makes it again." }), more);
  fill();
}

// --- curves

function axes(log, label) {
  const font = '12px system-ui, "DejaVu Sans", sans-serif';
  const one = { stroke: () => ink("--soft"), grid: { stroke: () => ink("--grid"), width: 1 }, ticks: { stroke: () => ink("--grid"), width: 1 }, font };
  return [{ ...one, size: 34, values: (u, list) => list.map((v) => shown(v)) }, { ...one, size: 62, values: (u, list) => list.map((v) => (v == null ? "" : shown(v))) }];
}
function curves() {
  if (!D.curves.length) return;
  const ranked = D.curves.findIndex((curve) => curve.name === "test " + D.metric);
  const select = el("select", { id: "what" }, ...D.curves.map((curve, i) => el("option", { value: i, text: curve.name })));
  const log = el("input", { type: "checkbox" }), place = el("div", { class: "plot", tabindex: 0, role: "application" });
  const second = el("div", { class: "plot", tabindex: 0, role: "application" });
  const other = el("select", {}, ...D.curves.map((curve, i) => el("option", { value: i, text: curve.name })));
  other.value = ranked >= 0 ? ranked : Math.min(1, D.curves.length - 1);
  const log2 = el("input", { type: "checkbox" });
  const makers = [[select, log, place], [other, log2, second]].slice(0, D.curves.length > 1 ? 2 : 1).map(([pick, scale, at]) => chart(pick, scale, at));
  const column = (pick, scale, at) => el("div", {}, el("div", { class: "tools" }, el("label", {}, "Show ", pick), el("label", {}, scale, "logarithmic")), at);
  panel("curves", "Curves", el("div", { class: "two" }, column(select, log, place), D.curves.length > 1 ? column(other, log2, second) : null),
    el("p", { class: "soft", text: "Hover or touch for values; drag to zoom in, double-click to zoom out. With the keyboard: left and right move along a curve, up and down go to another." }));
  for (const make of makers) make();
}
function chart(pick, scale, at) {
  let plot = null, order = [], focused = -1;
  function make() {
    plot?.destroy();
    const curve = D.curves[+pick.value];
    order = D.runs.map((_, i) => i).filter((i) => state.visible[i] && curve.y[i].some((v) => v != null));
    const positive = curve.y.every((row) => row.every((v) => v == null || v > 0));
    scale.disabled = !positive;
    at.setAttribute("aria-label", curve.name + " by iteration, " + order.length + " runs; arrow keys read values");
    const few = curve.x.length <= 60 && order.length <= 12;
    const series = order.map((i) => ({
      label: name(i), stroke: () => colour(i), width: state.selected === i ? 3.2 : order.length > 30 ? 1.1 : 1.6, spanGaps: true, points: { show: few, size: 5 },
      alpha: state.selected >= 0 && state.selected !== i ? .18 : 1,
    }));
    plot = new uPlot({
      width: Math.max(240, at.clientWidth || 320), height: 290, legend: { show: false },
      scales: { x: { time: false }, y: { distr: scale.checked && positive ? 3 : 1 } }, axes: axes(), focus: { alpha: order.length > 1 ? .2 : 1 },
      cursor: { focus: { prox: 26 }, points: { size: 7 }, dataIdx: nearest, drag: { x: true, y: false } },
      series: [{}, ...series],
      hooks: {
        setSeries: [(u, s) => { focused = s == null ? -1 : s - 1; show(u); }],
        setCursor: [(u) => show(u)],
      },
    }, [curve.x, ...order.map((i) => curve.y[i])], at);
    plot.over.addEventListener("click", () => { if (many && focused >= 0) choose(order[focused]); });
    plot.over.addEventListener("pointerleave", () => say(""));
  }
  function nearest(u, s, i) {
    const row = u.data[s];
    if (s === 0 || row[i] != null) return i;
    for (let d = 1; d < row.length; d++) {
      if (row[i - d] != null) return i - d;
      if (row[i + d] != null) return i + d;
    }
    return i;
  }
  function show(u) {
    const { left, top: y, idx } = u.cursor;
    if (idx == null || left == null || left < 0) return say("");
    let k = focused;
    if (k < 0 && order.length === 1) k = 0;
    if (k < 0) return say("");
    const i = nearest(u, k + 1, idx), value = u.data[k + 1][i], box = u.over.getBoundingClientRect();
    say((many ? name(order[k]) + "\n" : "") + "iteration " + shown(Math.round(u.data[0][i])) + ": " + shown(value), box.left + left, box.top + y);
  }
  at.addEventListener("keydown", (event) => {
    if (!plot || !order.length) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], jump = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step && !jump && event.key !== "Escape" && event.key !== "Enter") return;
    event.preventDefault();
    if (event.key === "Escape") { at.blur(); return say(""); }
    if (event.key === "Enter") { if (many && focused >= 0) choose(order[focused]); return; }
    at.k = ((at.k ?? 0) + (jump || 0) + order.length) % order.length;
    const row = plot.data[at.k + 1];
    let i = at.i ?? -1;
    if (step) { do { i += step; } while (i >= 0 && i < row.length && row[i] == null); }
    i = Math.max(0, Math.min(row.length - 1, i));
    at.i = row[i] == null ? nearest(plot, at.k + 1, i) : i;
    plot.setCursor({ left: plot.valToPos(plot.data[0][at.i], "x"), top: plot.valToPos(row[at.i], "y") });
    plot.setSeries(at.k + 1, { focus: true });
  });
  at.addEventListener("blur", () => say(""));
  pick.addEventListener("change", make);
  scale.addEventListener("change", make);
  redraw.push(make);
  new ResizeObserver(() => { if (plot && Math.abs(plot.width - at.clientWidth) > 2 && at.clientWidth > 0) plot.setSize({ width: at.clientWidth, height: 290 }); }).observe(at);
  return make;
}

// --- scales of our own charts

function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      for (const m of high / low > 300 ? [1] : [1, 2, 5]) { const v = +(m * 10 ** e).toPrecision(3); if (v >= low * .999 && v <= high * 1.001) found.push(v); }
    }
    if (found.length > 1) return found;
  }
  const raw = (high - low) / 4 || 1, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * size).find((s) => s >= raw), found = [];
  const first = Math.ceil(low / step - 1e-9);
  for (let n = 0; n < 12 && (first + n) * step <= high + step * 1e-9; n++) found.push(+((first + n) * step).toPrecision(10));
  return found;
}
function scaleOf(values, log) {
  const numbers = values.filter((v) => v != null && isFinite(v));
  let low = Math.min(...numbers), high = Math.max(...numbers);
  if (high - low <= 1e-12 * Math.max(Math.abs(low), Math.abs(high))) { const pad = Math.abs(low) * .05 || 1; low -= pad; high += pad; log = log && low > 0; }
  const f = log ? Math.log : (v) => v;
  return { low, high, log, share: (v) => (f(v) - f(low)) / (f(high) - f(low)) };
}

// --- Pareto: the metric against seconds

function pareto() {
  const with_ = D.runs.map((_, i) => i).filter((i) => scores[i] != null && D.runs[i].seconds > 0);
  if (with_.length < 2) return null;
  const box = el("div", {}), part = el("div", { class: "panel", id: "pareto" }, el("h2", { text: "Time against " + D.metric }), box,
    el("p", { class: "soft", text: "The dashed line joins the runs that no other beats in both." }));
  function draw() {
    const ids = with_.filter((i) => state.visible[i]);
    const w = Math.max(260, box.clientWidth || 480), h = 280, m = { l: 58, r: 14, t: 10, b: 40 };
    const seconds = with_.map((i) => D.runs[i].seconds), log = Math.max(...seconds) / Math.min(...seconds) > 8;
    const sx = scaleOf(seconds, log), sy = scaleOf(with_.map((i) => scores[i]));
    const x = (i) => m.l + sx.share(D.runs[i].seconds) * (w - m.l - m.r), y = (i) => h - m.b - sy.share(scores[i]) * (h - m.t - m.b);
    const made = svg("svg", { width: w, height: h, viewBox: "0 0 " + w + " " + h, role: "img", "aria-label": D.metric + " against seconds of training" });
    for (const v of ticks(sy.low, sy.high)) { const at = h - m.b - sy.share(v) * (h - m.t - m.b); made.append(svg("line", { x1: m.l, x2: w - m.r, y1: at, y2: at, class: "gridline" }), svg("text", { x: m.l - 7, y: at + 4, "text-anchor": "end", class: "faint", text: shown(v) })); }
    for (const v of ticks(sx.low, sx.high, sx.log)) { const at = m.l + sx.share(v) * (w - m.l - m.r); made.append(svg("line", { y1: m.t, y2: h - m.b, x1: at, x2: at, class: "gridline" }), svg("text", { x: at, y: h - m.b + 16, "text-anchor": "middle", class: "faint", text: shown(v) })); }
    made.append(svg("text", { x: (m.l + w - m.r) / 2, y: h - 6, "text-anchor": "middle", class: "faint", text: "seconds of training" }));
    const front = front_of(ids);
    if (front.length > 1) made.append(svg("path", { class: "front", d: "M" + front.map((i, k) => (k ? x(i) + "," + y(front[k - 1]) + " " : "") + x(i) + "," + y(i)).join("L") }));
    for (const i of ids) {
      const dot = svg("circle", { cx: x(i), cy: y(i), r: state.selected === i ? 8 : front.includes(i) ? 6 : 4.5, fill: colour(i), opacity: state.selected >= 0 && state.selected !== i ? .3 : .9, stroke: ink("--panel"), onclick: () => choose(i), style: "cursor:pointer" });
      hover(dot, () => told(i) + "\n" + clock(D.runs[i].seconds));
      made.append(dot);
    }
    box.replaceChildren(made);
  }
  redraw.push(draw);
  part.draw = draw;
  return part;
}
function front_of(ids) {
  const sorted = [...ids].sort((a, b) => D.runs[a].seconds - D.runs[b].seconds || (D.lower ? scores[a] - scores[b] : scores[b] - scores[a]));
  const front = [];
  for (const i of sorted) if (!front.length || (D.lower ? scores[i] < scores[front[front.length - 1]] : scores[i] > scores[front[front.length - 1]])) front.push(i);
  return front;
}

// --- importance of the settings

function importance() {
  if (!D.importance.length) return null;
  const rows = D.importance.flatMap(([label, share]) => {
    const fill = el("div", { class: "fill" });
    fill.style.width = 100 * share + "%";
    return [el("span", { text: label }), el("div", { class: "track" }, fill), el("span", { class: "v", text: (100 * share).toFixed(0) + " %" })];
  });
  return el("div", { class: "panel", id: "importance" }, el("h2", { text: "Importance of settings" }), el("div", { class: "bars" }, ...rows),
    el("p", { class: "soft", text: "Share of the variance of " + D.metric + " that each setting explains (fANOVA, optuna). Of few runs it says little." }));
}

// --- parallel coordinates

const dimensions = [...D.columns.map((key, k) => ({ key, of: (i) => D.runs[i].values[k] })), ...(metricAt >= 0 ? [{ key: D.metric, of: (i) => scores[i] }] : [])];
for (const dimension of dimensions) {
  const all = D.runs.map((_, i) => dimension.of(i)).filter((v) => v != null && v !== "");
  dimension.numeric = all.length > 0 && all.every((v) => !isNaN(v) && isFinite(v));
  if (dimension.numeric) {
    const numbers = all.map(Number), low = Math.min(...numbers), high = Math.max(...numbers);
    const scale = scaleOf(numbers, low > 0 && high / low > 30);
    dimension.share = (v) => scale.share(+v);
    dimension.marks = ticks(scale.low, scale.high, scale.log).map((v) => [v, shown(v)]);
  } else {
    const words = [...new Set(all.map(String))].sort();
    dimension.share = (v) => (words.length > 1 ? words.indexOf(String(v)) / (words.length - 1) : .5);
    dimension.marks = words.map((w) => [w, w.length > 14 ? w.slice(0, 13) + "…" : w]);
  }
}
function within(i) {
  return Object.entries(state.brush).every(([key, [low, high]]) => {
    const dimension = dimensions.find((one) => one.key === key), value = dimension.of(i);
    if (value == null || value === "") return false;
    const share = dimension.share(value);
    return share >= low - 1e-9 && share <= high + 1e-9;
  });
}
function parallel() {
  if (dimensions.length < 2 || !many) return;
  const box = el("div", { class: "scroll free" });
  panel("parallel", "Parallel coordinates", box, el("p", { class: "soft", text: "A line per run. Drag along an axis to keep the runs that pass there; a click on the axis lets all pass again. The filter of the table does the same by keyboard: base_lr<0.05." }));
  const h = 300, t = 34, b = 16;
  function draw(why) {
    const w = Math.max(box.clientWidth || 600, 96 * dimensions.length), gap = (w - 90) / (dimensions.length - 1);
    const made = svg("svg", { width: w, height: h, viewBox: "0 0 " + w + " " + h, role: "img", "aria-label": "Settings and " + D.metric + " of all runs" });
    const x = (k) => 30 + k * gap, y = (k, v) => h - b - dimensions[k].share(v) * (h - t - b);
    const order = D.runs.map((_, i) => i).sort((p, q) => (state.visible[p] - state.visible[q]) || ((p === state.selected) - (q === state.selected)));
    for (const i of order) {
      const at = dimensions.map((one, k) => (one.of(i) == null || one.of(i) === "" ? null : x(k) + "," + y(k, one.of(i)).toFixed(1)));
      const path = at.map((p, k) => (p == null ? "" : (k && at[k - 1] != null ? "L" : "M") + p)).join("");
      const line = svg("path", { d: path, class: "line" + (state.visible[i] ? "" : " dim") + (state.selected === i ? " hot" : ""), stroke: colour(i), opacity: state.selected >= 0 && state.selected !== i ? .22 : .8, onclick: () => choose(i) });
      if (state.visible[i]) hover(line, () => told(i));
      made.append(line);
    }
    dimensions.forEach((one, k) => {
      made.append(svg("line", { x1: x(k), x2: x(k), y1: t, y2: h - b, class: "axis", "stroke-width": 1.5 }));
      made.append(svg("text", { x: k ? x(k) : x(k) - 24, y: 14, "text-anchor": k ? (k === dimensions.length - 1 ? "middle" : "middle") : "start", "font-weight": 600, text: one.key.length > 16 ? "…" + one.key.slice(-15) : one.key }, svg("title", { text: one.key })));
      for (const [v, text] of one.marks) made.append(svg("line", { x1: x(k) - 3, x2: x(k) + 3, y1: y(k, v), y2: y(k, v), class: "axis" }), svg("text", { x: x(k) + 6, y: y(k, v) + 4, class: "faint", text, "paint-order": "stroke", stroke: ink("--panel"), "stroke-width": 3 }));
      const brush = state.brush[one.key];
      if (brush) made.append(svg("rect", { class: "brush", x: x(k) - 8, width: 16, y: h - b - brush[1] * (h - t - b), height: (brush[1] - brush[0]) * (h - t - b) }));
      const touch = svg("rect", { class: "touch", x: x(k) - 12, width: 24, y: t - 6, height: h - t - b + 12 });
      const share = (event) => { const r = made.getBoundingClientRect(); return Math.max(0, Math.min(1, (h - b - (event.clientY - r.top)) / (h - t - b))); };
      let from = null;
      touch.addEventListener("pointerdown", (event) => { from = share(event); touch.setPointerCapture(event.pointerId); });
      touch.addEventListener("pointerup", (event) => {
        if (from == null) return;
        const to = share(event);
        if (Math.abs(to - from) < .02) delete state.brush[one.key]; else state.brush[one.key] = [Math.min(from, to), Math.max(from, to)];
        from = null;
        refilter();
      });
      made.append(touch);
    });
    box.replaceChildren(made);
  }
  redraw.push(draw);
  draw();
}

// --- accuracy with data missing

function missing() {
  D.missing.forEach((table, n) => {
    const part = panel("missing" + (n || ""), "With data missing" + (D.missing.length > 1 ? ": " + table.name : ""));
    const methods = Object.keys(table.cells), grid = el("div", { class: "two" });
    part.append(grid);
    for (const [kind, settings] of Object.entries(table.kinds)) {
      const at = el("div", { class: "plot", tabindex: 0, role: "img", "aria-label": "accuracy in per cent, " + kind + ": " + methods.map((m) => m + " " + settings.map((s) => s + " " + (table.cells[m][s]?.[0] ?? "")).join(", ")).join("; ") });
      grid.append(el("div", {}, el("h3", { text: { iid: "share of pixels missing", rects: "missing rectangles, number x width" }[kind] || kind }), at));
      const x = settings.map((_, i) => i), series = [{}], data = [x], bands = [];
      methods.forEach((method, k) => {
        const own = settings.map((s) => table.cells[method][s] || [null, null, null]), c = CATEGORIES[k % CATEGORIES.length];
        bands.push({ series: [series.length + 2, series.length + 1], fill: c + "33" });
        data.push(own.map((v) => v[0]), own.map((v) => v[1]), own.map((v) => v[2]));
        series.push({ label: method, stroke: c, width: 2, points: { show: true, size: 6 } }, { stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } });
      });
      const [ax, ay] = axes();
      const make = () => {
        at.replaceChildren();
        new uPlot({ width: Math.max(240, at.clientWidth || 320), height: 260, legend: { show: false }, scales: { x: { time: false, range: [-.3, settings.length - .7] } }, bands, series,
          axes: [{ ...ax, splits: () => x, values: () => settings.map((s) => s.split(":")[1] || s) }, ay],
          cursor: { points: { size: 7 }, drag: { x: false, y: false } },
          hooks: { setCursor: [(u) => {
            const { left, top: y, idx } = u.cursor;
            if (idx == null || left < 0) return say("");
            const r = u.over.getBoundingClientRect();
            say(settings[idx] + "\n" + methods.map((m) => { const v = table.cells[m][settings[idx]]; return v ? m + ": " + v[0].toFixed(2) + " % (" + v[1].toFixed(2) + " to " + v[2].toFixed(2) + ")" : ""; }).filter(Boolean).join("\n"), r.left + left, r.top + y);
          }] } }, data, at);
      };
      redraw.push((why) => { if (why === "theme") make(); });
      make();
      at.addEventListener("pointerleave", () => say(""));
    }
    part.append(el("div", { class: "legend" }, ...methods.map((m, k) => { const d = el("span", { class: "dot" }); d.style.background = CATEGORIES[k % CATEGORIES.length]; return el("span", {}, d, m); })),
      el("p", { class: "soft", text: "Accuracy in per cent; the bands are 95 % intervals (Wilson) over the images." }));
  });
}

// --- the run in detail

function confusionOf(matrix, n, several) {
  const size = matrix.counts.length, sums = matrix.counts.map((row) => row.reduce((a, b) => a + b, 0));
  const table = el("table", { class: "confusion" }, el("caption", { class: "soft", text: "Rows are labels, columns what they are taken for; accuracy " + percent(matrix.accuracy) }));
  table.append(el("tr", {}, el("th", { text: "" }), ...matrix.counts.map((_, j) => el("th", { scope: "col", text: j })), el("th", { scope: "col", text: "right" })));
  matrix.counts.forEach((row, i) => {
    const cells = row.map((count, j) => {
      const share = sums[i] ? count / sums[i] : 0, td = el("td", { text: count || "", title: i + " taken for " + j + ": " + count });
      if (count) { td.style.background = i === j ? "rgba(47,127,163," + (.15 + .8 * share) + ")" : "rgba(209,70,45," + (.12 + .85 * share) + ")"; if (share > .5) td.style.color = "#fff"; }
      return td;
    });
    table.append(el("tr", {}, el("th", { scope: "row", text: i }), ...cells, el("td", { class: "soft", text: sums[i] ? (100 * row[i] / sums[i]).toFixed(1) + " %" : "-" })));
  });
  if (size > 60) return el("p", { text: size + " classes: too many for a table; netspec test RUN --confusion draws them." });
  return el("div", { class: "scroll free" }, several ? el("h3", { text: "test net " + n }) : null, table);
}
function bars(one) {
  const w = 190, h = 54, top_ = Math.max(...one.counts), n = one.counts.length, made = svg("svg", { width: w, height: h, role: "img", "aria-label": "histogram from " + shown(one.low) + " to " + shown(one.high) });
  one.counts.forEach((count, i) => { const tall = count ? Math.max(1, (h - 4) * count / top_) : 0; made.append(svg("rect", { x: i * w / n + .5, width: w / n - 1, y: h - tall, height: tall })); });
  return el("div", { class: "histo" }, made, el("span", { class: "soft", text: shown(one.low) + " to " + shown(one.high) + ", mean " + shown(one.mean) + ", sd " + shown(one.sd) + (one.odd ? ", " + one.odd + " not finite" : "") }));
}
function netGraph(net) {
  const holder = el("div", { class: "graph" }), about = el("div", { "aria-live": "polite" });
  const made = svg("svg", { role: "group", "aria-label": "The net as a graph of " + net.nodes.length + " layers", tabindex: 0 }), all = svg("g", {});
  for (const line of net.links) {
    let d = "M" + line[0] + "," + line[1];
    for (let i = 2; i < line.length; i += 2) { const my = (line[i - 1] + line[i + 1]) / 2; d += "C" + line[i - 2] + "," + my + " " + line[i] + "," + my + " " + line[i] + "," + line[i + 1]; }
    all.append(svg("path", { d }));
  }
  const view = { x: 0, y: 0, k: 1 };
  const apply = () => all.setAttribute("transform", "translate(" + view.x + "," + view.y + ") scale(" + view.k + ")");
  function show(node, group) {
    made.querySelectorAll(".node.on").forEach((other) => other.classList.remove("on"));
    group.classList.add("on");
    const shapes = (label, list) => el("tr", {}, el("th", { text: label }), el("td", { text: list.map(([blob, shape]) => blob + (shape ? " (" + shape + ")" : "")).join(", ") || "none" }));
    about.replaceChildren(el("h3", { text: node.name + ", " + node.type }), el("table", { class: "facts" }, shapes("bottoms", node.bottoms), shapes("tops", node.tops),
      el("tr", {}, el("th", { text: "parameters" }), el("td", { text: node.parameters.toLocaleString("en") })),
      node.products == null ? "" : el("tr", {}, el("th", { text: "multiply-adds" }), el("td", { text: node.products.toLocaleString("en") }))), el("pre", { tabindex: 0, text: node.text }));
    (node.blobs || []).forEach((one, i) => about.append(el("div", {}, el("span", { class: "soft", text: "blob " + i + " (" + one.shape + ")" })), bars(one)));
    (node.values || []).forEach((one, i) => about.append(el("div", {}, el("span", { class: "soft", text: "top " + i + ", values on a test batch" })), bars(one)));
  }
  const groups = net.nodes.map((node, i) => {
    const group = svg("g", { class: "node", tabindex: i ? -1 : 0, role: "button", "aria-label": node.name + ", " + node.type, transform: "translate(" + (node.x - node.w / 2) + "," + node.y + ")" },
      svg("rect", { width: node.w, height: node.h, fill: node.colour }), svg("text", { class: "name", x: node.w / 2, y: 17, text: node.name }), svg("text", { x: node.w / 2, y: 32, text: node.type }));
    group.addEventListener("click", () => { if (!moved) { show(node, group); roam(i); } });
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(node, group); }
      const to = { ArrowDown: i + 1, ArrowRight: i + 1, ArrowUp: i - 1, ArrowLeft: i - 1, Home: 0, End: groups.length - 1 }[event.key];
      if (to != null && groups[to]) { event.preventDefault(); event.stopPropagation(); roam(to); groups[to].focus({ preventScroll: true }); centre(net.nodes[to]); show(net.nodes[to], groups[to]); }
    });
    all.append(group);
    return group;
  });
  function roam(to) { groups.forEach((group, i) => group.setAttribute("tabindex", i === to ? 0 : -1)); }
  function centre(node) {
    const w = holder.clientWidth, h = holder.clientHeight, x = node.x * view.k + view.x, y = (node.y + node.h / 2) * view.k + view.y;
    if (x < 40 || x > w - 40 || y < 30 || y > h - 30) { view.x += w / 2 - x; view.y += h / 2 - y; apply(); }
  }
  function fit() {
    holder.style.height = Math.max(180, Math.min(innerHeight * .64, 620, net.height * Math.min(1.1, ((holder.clientWidth || 600) - 24) / net.width) + 40)) + "px";
    const w = holder.clientWidth || 600, h = holder.clientHeight || 400, k = Math.min(1.1, (w - 24) / net.width, (h - 24) / net.height);
    view.k = Math.max(k, Math.min(.55, (w - 24) / net.width, 1));
    view.x = (w - net.width * view.k) / 2; view.y = net.height * view.k < h ? (h - net.height * view.k) / 2 : 12;
    apply();
  }
  function zoom(by, cx, cy) {
    const k = Math.max(.04, Math.min(4, view.k * by)), f = k / view.k;
    view.x = cx - (cx - view.x) * f; view.y = cy - (cy - view.y) * f; view.k = k; apply();
  }
  const middle = (by) => zoom(by, holder.clientWidth / 2, holder.clientHeight / 2);
  let moved = false;
  const fingers = new Map();
  holder.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && !holder.contains(document.activeElement)) return; // else the page scrolls
    event.preventDefault();
    const r = holder.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - r.left, event.clientY - r.top);
  }, { passive: false });
  made.addEventListener("pointerdown", (event) => { fingers.set(event.pointerId, event); moved = false; });
  addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    if (fingers.size === 1) {
      if (Math.abs(event.clientX - last.clientX) + Math.abs(event.clientY - last.clientY) < 3 && !moved) return;
      moved = true;
      view.x += event.clientX - last.clientX; view.y += event.clientY - last.clientY; apply();
    } else {
      const other = [...fingers.values()].find((one) => one.pointerId !== event.pointerId), r = holder.getBoundingClientRect();
      const before = Math.hypot(last.clientX - other.clientX, last.clientY - other.clientY), now = Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY);
      moved = true;
      if (before) zoom(now / before, (event.clientX + other.clientX) / 2 - r.left, (event.clientY + other.clientY) / 2 - r.top);
    }
    fingers.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, (event) => { fingers.delete(event.pointerId); setTimeout(() => { moved = false; }); });
  made.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [50, 0], ArrowRight: [-50, 0], ArrowUp: [0, 50], ArrowDown: [0, -50] }[event.key];
    if (event.target === made && step) { event.preventDefault(); view.x += step[0]; view.y += step[1]; apply(); }
    if (event.key === "+" || event.key === "=") middle(1.25);
    if (event.key === "-") middle(.8);
    if (event.key === "0") fit();
  });
  made.append(all);
  holder.append(made);
  const tools = el("div", { class: "tools" }, el("button", { type: "button", text: "+", "aria-label": "Zoom in", onclick: () => middle(1.25) }), el("button", { type: "button", text: "−", "aria-label": "Zoom out", onclick: () => middle(.8) }), el("button", { type: "button", text: "Fit", onclick: fit }),
    el("span", { class: "soft", text: "Drag to move; Ctrl and the wheel, two fingers, or + and - zoom. A click, or Enter, shows a layer; arrow keys go from layer to layer." }));
  panel("net", "Net" + (many ? " of " + D.detail.name : ""), tools, el("div", { class: "inside" }, holder, about));
  fit();
  new ResizeObserver(() => fit()).observe(holder);
  if (net.nodes.length) show(net.nodes[0], groups[0]);
}
function details() {
  const of = many ? " of " + D.detail.name : "";
  if (D.detail.confusion?.length) panel("confusion", "Confusion matrix" + of, ...D.detail.confusion.map((matrix, n) => confusionOf(matrix, n, D.detail.confusion.length > 1)));
  if (D.detail.pictures.length) panel("pictures", "Pictures" + of, el("div", { class: "pictures" }, ...D.detail.pictures.map((one) => el("figure", {}, el("img", { alt: one.name, src: "data:image/png;base64," + one.data }), el("figcaption", { text: one.name })))));
  if (D.detail.net) netGraph(D.detail.net);
  const rows = D.detail.facts.map(([label, value]) => el("tr", {}, el("th", { scope: "row", text: label }), el("td", { text: value })));
  panel("files", "Facts and files" + of, el("table", { class: "facts" }, ...rows), ...D.detail.files.map(([label, text]) => el("details", {}, el("summary", { text: label }), el("pre", { tabindex: 0, text }))));
}

// --- all together

if (many) runTable();
curves();
if (many) {
  const parts = [pareto(), importance()].filter(Boolean);
  if (parts.length) {
    main.append(el("div", { class: parts.length > 1 ? "two" : "" }, ...parts));
    for (const part of parts) { nav.append(el("a", { href: "#" + part.id, text: part.querySelector("h2").textContent })); part.draw?.(); }
  }
  parallel();
}
missing();
details();
dark.addEventListener("change", () => { for (const draw of redraw) draw("theme"); });
let timer = 0;
addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(() => { for (const draw of redraw) draw("size"); }, 150); });
window.netspecReady = performance.now();
