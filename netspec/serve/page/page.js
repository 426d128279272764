"use strict";
// One image or one row at a time: what is seen lives in `values` (NaN where unknown) and `seen`; every change asks the
// net again. One question is under way at a time, and the newest state is asked next.

const $ = (id) => document.getElementById(id);
const state = { about: null, values: [], seen: [], row: 0, asked: false, again: false, best: null, size: 1, stroke: 0 };

async function send(path, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  if (!answer.ok) {
    const text = await answer.text();
    let reason = text;
    try { reason = JSON.parse(text).error || text; } catch { /* no JSON: the text itself is the reason */ }
    throw new Error(reason);
  }
  return answer;
}

function say(text, bad = false) {
  $("state").textContent = text;
  $("state").classList.toggle("bad", bad);
}

function modelPath(rest) { return `page/models/${encodeURIComponent(state.about.name)}/${rest}`; }

// Asking

function question(outputs, extra = {}) {
  const { about, values, seen } = state;
  const data = values.map((value, i) => (isSeen(i) && Number.isFinite(value) ? value : null));
  const shape = [1, ...about.shape];
  const inputs = [{ name: about.input, datatype: "FP32", shape, data }];
  const label = $("label").value;
  const parameters = label === "" || about.kind !== "images" ? {} : { class: Number(label) };
  return { inputs, parameters: { ...parameters, ...extra }, outputs: outputs.map((name) => ({ name })) };
}

function isSeen(i) {
  return state.about.kind === "images" ? state.seen[i % state.seen.length] : true;
}

async function infer(outputs) {
  const path = `v2/models/${encodeURIComponent(state.about.name)}/infer`;
  const answer = await (await send(path, question(outputs))).json();
  return Object.fromEntries(answer.outputs.map((one) => [one.name, one.data]));
}

function changed() {
  if (state.about.kind === "images") drawBoard();
  if (state.asked) { state.again = true; return; }
  ask();
}

async function ask() {
  state.asked = true;
  try {
    do {
      state.again = false;
      await (state.about.kind === "images" ? askImage() : askRow());
    } while (state.again);
    say("");
  } catch (error) {
    say(error.message, true);
  } finally {
    state.asked = false;
  }
}

async function askImage() {
  const { about } = state;
  const begin = performance.now();
  const found = await infer(about.generative ? ["posterior", "expected", "deviation", "log_likelihood"] : ["posterior"]);
  const took = performance.now() - begin;
  bars($("bars"), found.posterior, about.class_names);
  const known = state.seen.filter(Boolean).length;
  const facts = [`<b>${known}</b> of ${state.seen.length} pixels seen`];
  if (about.generative) {
    facts.push(`log p of what is seen <b>${number(found.log_likelihood[0])}</b> nats`);
    facts.push(`entropy of the class <b>${number(entropy(found.posterior))}</b> nats`);
  }
  facts.push(`answered in ${took.toFixed(0)} ms`);
  $("facts").innerHTML = facts.join(" · ");
  if (!about.generative) return;
  picture("expected", "expected", found.expected, 255);
  const most = Math.max(1, ...found.deviation.map((one) => one || 0));
  $("most").textContent = most.toFixed(0);
  picture("deviation", "its deviation", found.deviation, most);
  if (state.again) return;
  for (let i = 1; i <= 4; i++) picture(`sample${i}`, `sample ${i}`, (await infer(["sample"])).sample, 255);
  if (state.again) return;
  if (known < state.seen.length) {
    const gain = await (await send(modelPath("gain"), question(["posterior"]))).json();
    state.best = gain.best && { row: gain.best[0], column: gain.best[1], size: gain.size };
  } else {
    state.best = null;
  }
  drawBoard();
}

// Showing

function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return size >= 1000 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toPrecision(3);
}

function entropy(p) { return p.reduce((sum, one) => sum - (one > 0 ? one * Math.log(one) : 0), 0); }

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function bars(target, p, names) {
  const top = p.indexOf(Math.max(...p.map((one) => one ?? -1)));
  const order = p.map((_, i) => i);
  if (p.length > 20) order.sort((a, b) => p[b] - p[a]).splice(20);
  if (target.children.length !== order.length) {
    target.replaceChildren(...order.map(() => element("div", { class: "bar", role: "listitem" },
      element("span", { class: "name" }), element("div", { class: "track" }, element("div", { class: "fill" })),
      element("span", { class: "value" }))));
  }
  order.forEach((i, place) => {
    const [name, track, value] = target.children[place].children;
    name.textContent = names ? names[i] : i;
    track.firstChild.style.width = `${100 * (p[i] ?? 0)}%`;
    value.textContent = p[i] === null ? "–" : p[i] >= 0.001 || p[i] === 0 ? `${(100 * p[i]).toFixed(1)} %` : "< 0.1 %";
    target.children[place].classList.toggle("top", i === top);
  });
}

function colour(values, i, plane, most) {
  const at = (c) => Math.round(255 * Math.min(1, Math.max(0, (values[c * plane + i] ?? 0) / most)));
  const channels = state.about.shape[0];
  if (channels === 3) return state.about.bgr ? [at(2), at(1), at(0)] : [at(0), at(1), at(2)];
  const grey = at(0);
  return [grey, grey, grey];
}

function paint(canvas, values, most, seen) {
  const [, h, w] = state.about.shape;
  canvas.width = w;
  canvas.height = h;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(w, h);
  const cover = seen && getComputedStyle(document.body).getPropertyValue("--hidden").trim();
  const rgb = cover && [1, 3, 5].map((k) => parseInt(cover.slice(k, k + 2), 16));
  for (let i = 0; i < h * w; i++) {
    const shown = !seen || seen[i] ? colour(values, i, h * w, most) : rgb;
    pixels.data.set([...shown, 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
}

function picture(id, caption, values, most) {
  let canvas = $(id);
  if (!canvas) {
    canvas = element("canvas", { id, role: "img", "aria-label": caption });
    $("pictures").append(element("figure", {}, canvas, element("figcaption", { text: caption })));
  }
  paint(canvas, values, most);
}

function drawBoard() {
  const [, h, w] = state.about.shape;
  const small = element("canvas");
  paint(small, state.values, 255, state.seen);
  const board = $("board");
  const scale = Math.max(1, Math.round(350 / Math.max(h, w)));
  board.width = w * scale;
  board.height = h * scale;
  const context = board.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, board.width, board.height);
  if (state.best) {
    const { row, column, size } = state.best;
    context.strokeStyle = getComputedStyle(document.body).getPropertyValue("--best").trim();
    context.lineWidth = 3;
    const side = size * scale;
    context.strokeRect(column * side + 1.5, row * side + 1.5, Math.min(side, board.width - column * side) - 3,
      Math.min(side, board.height - row * side) - 3);
  }
  if (state.cursor) {
    const [x, y] = state.cursor;
    context.strokeStyle = "#ffd166";
    context.lineWidth = 2;
    context.strokeRect(x * scale + 1, y * scale + 1, scale - 2, scale - 2);
  }
}

// The brush

function brush() { return document.querySelector('input[name="brush"]:checked').value; }

function dab(x, y) {
  const [c, h, w] = state.about.shape;
  const radius = Number($("size").value) * Math.max(h, w) / 56;
  const kind = brush();
  for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(h - 1, y + radius); row++) {
    for (let column = Math.max(0, Math.floor(x - radius)); column <= Math.min(w - 1, x + radius); column++) {
      const distance = Math.hypot(column + 0.5 - x, row + 0.5 - y);
      if (distance > radius + 0.5) continue;
      const i = row * w + column;
      if (kind === "hide") state.seen[i] = false;
      else if (kind === "show") state.seen[i] = true;
      else {
        const ink = Math.min(1, radius + 0.5 - distance);
        for (let k = 0; k < c; k++) {
          const at = k * h * w + i;
          const old = state.values[at];
          state.values[at] = kind === "draw" ? Math.max(old, 255 * ink) : old * (1 - ink);
        }
        state.seen[i] = true;
      }
    }
  }
}

function place(event) {
  const box = $("board").getBoundingClientRect();
  const [, h, w] = state.about.shape;
  return [(event.clientX - box.left) / box.width * w, (event.clientY - box.top) / box.height * h];
}

function startBrush() {
  const board = $("board");
  let last = null;
  const stroke = (event) => {
    const [x, y] = place(event);
    const [fromX, fromY] = last || [x, y];
    const steps = Math.max(1, Math.ceil(Math.hypot(x - fromX, y - fromY) * 2));
    for (let k = 1; k <= steps; k++) dab(fromX + (x - fromX) * k / steps, fromY + (y - fromY) * k / steps);
    last = [x, y];
    touched();
  };
  board.addEventListener("pointerdown", (event) => { board.setPointerCapture(event.pointerId); last = null; stroke(event); });
  board.addEventListener("pointermove", (event) => { if (board.hasPointerCapture(event.pointerId)) stroke(event); });
  board.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const [, h, w] = state.about.shape;
    state.cursor ||= [Math.floor(w / 2), Math.floor(h / 2)];
    if (event.key in steps) {
      const [dx, dy] = steps[event.key];
      state.cursor = [Math.min(w - 1, Math.max(0, state.cursor[0] + dx)), Math.min(h - 1, Math.max(0, state.cursor[1] + dy))];
      drawBoard();
    } else if (event.key === " ") {
      dab(state.cursor[0] + 0.5, state.cursor[1] + 0.5);
      touched();
    } else return;
    event.preventDefault();
  });
  board.addEventListener("blur", () => { state.cursor = null; drawBoard(); });
}

function touched() {
  state.best = null;
  $("tree").hidden = true;
  changed();
}

// Images

function setImage(values) {
  state.values = values;
  touched();
}

function setSeen(rule) {
  state.seen = state.seen.map((_, i) => rule(i));
  touched();
}

async function nextExample() {
  const found = await (await send(modelPath(`example?row=${state.row}`))).json();
  state.row = found.row + 1;
  return found;
}

function blankImage() {
  const [c, h, w] = state.about.shape;
  setImage(new Array(c * h * w).fill(0));
}

async function openFile(file) {
  const [c, h, w] = state.about.shape;
  const bitmap = await createImageBitmap(file);
  const canvas = element("canvas");
  canvas.width = w;
  canvas.height = h;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, w, h);
  const { data } = context.getImageData(0, 0, w, h);
  const values = new Array(c * h * w);
  for (let i = 0; i < h * w; i++) {
    const [r, g, b] = data.slice(4 * i, 4 * i + 3);
    if (c === 3) [r, g, b].forEach((one, k) => { values[(state.about.bgr ? 2 - k : k) * h * w + i] = one; });
    else for (let k = 0; k < c; k++) values[k * h * w + i] = 0.299 * r + 0.587 * g + 0.114 * b;
  }
  setImage(values);
}

async function growTree() {
  try {
    say("drawing the tree…");
    const svg = await (await send(modelPath("tree"), question(["posterior"]))).blob();
    const image = $("tree");
    if (image.src) URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(svg);
    image.alt = "The most probable latent tree";
    image.hidden = false;
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

async function startImages() {
  const { about } = state;
  const [c, h, w] = about.shape;
  for (const one of document.querySelectorAll("[data-missing]")) one.hidden = !about.missing;
  for (const one of document.querySelectorAll("[data-generative]")) one.hidden = !about.generative;
  for (let k = 0; k < about.classes; k++) $("label").append(element("option", { value: k, text: about.class_names ? about.class_names[k] : k }));
  state.seen = new Array(h * w).fill(true);
  state.values = new Array(c * h * w).fill(0);
  $("example").hidden = !about.dataset;
  $("images").hidden = false;
  if (about.dataset) {
    try { state.values = (await nextExample()).values; } catch (error) { $("example").hidden = true; }
  }
  changed();
}

function bindImages() {
  startBrush();
  $("example").onclick = async () => {
    try { setImage((await nextExample()).values); } catch (error) { say(error.message, true); }
  };
  $("blank").onclick = blankImage;
  $("hideall").onclick = () => setSeen(() => false);
  $("revealall").onclick = () => setSeen(() => true);
  $("hidehalf").onclick = () => setSeen(() => Math.random() < 0.5);
  $("file").onchange = (event) => event.target.files[0] && openFile(event.target.files[0]).catch((error) => say(error.message, true));
  $("growtree").onclick = growTree;
  $("label").onchange = touched;
}

// Tables

async function askRow() {
  const { about } = state;
  const found = await infer(about.outputs);
  if (found.posterior) bars($("rowbars"), found.posterior, about.class_names);
  const rows = about.columns.map((column, i) => {
    const known = Number.isFinite(state.values[i]);
    const show = (values) => (values ? word(column, values[i]) : "–");
    return element("tr", {},
      element("td", { text: column.name }),
      element("td", known ? { text: word(column, state.values[i]) } : { text: "missing", class: "missing" }),
      element("td", { text: known ? "" : show(found.expected) }),
      element("td", { text: known || column.values ? "" : spread(column, found.deviation && found.deviation[i]) }),
      element("td", { text: known ? "" : show(found.sample) }));
  });
  $("answers").tBodies[0].replaceChildren(...rows);
  $("rowfacts").textContent = found.log_likelihood ? `log p of what is seen: ${number(found.log_likelihood[0])} nats` : "";
}

function word(column, value) {
  if (value === null || value === undefined) return "–";
  if (column.kind === "DATE") return day(value);
  return column.values ? column.values[Math.round(value)] ?? number(value) : number(value);
}

function spread(column, value) { return column.kind === "DATE" ? `${number(value)} days` : number(value); }

function day(value) { return new Date(Math.round(value) * 86400000).toISOString().slice(0, 10); }

function cellText(column, value) {
  if (!Number.isFinite(value)) return "";
  if (column.kind === "DATE") return day(value);
  return column.values ? Math.round(value) : Number(value.toPrecision(7));
}

function cellValue(column, text) {
  if (text === "") return NaN;
  return column.kind === "DATE" ? Date.parse(text) / 86400000 : Number(text);
}

function setRow(values) {
  state.values = values;
  state.about.columns.forEach((column, i) => {
    $("cells").elements[i].value = cellText(column, values[i]);
  });
  changed();
}

async function startTable() {
  const { about } = state;
  $("cells").replaceChildren(...about.columns.map((column, i) => {
    const field = column.values
      ? element("select", { name: column.name }, element("option", { value: "", text: "missing" }),
        ...column.values.map((text, k) => element("option", { value: k, text })))
      : element("input", { name: column.name, type: column.kind === "DATE" ? "date" : "number", step: column.kind === "DATE" ? "1" : "any", placeholder: "missing" });
    field.addEventListener("input", () => {
      state.values[i] = cellValue(column, field.value);
      changed();
    });
    return element("label", {}, element("span", { text: column.name }), field);
  }));
  $("cells").onsubmit = () => false;
  $("rowblank").onclick = () => setRow(about.columns.map(() => NaN));
  $("rowexample").onclick = async () => {
    try {
      const { values } = await nextExample();
      setRow(values.map((one) => (one === null ? NaN : one)));
    } catch (error) { say(error.message, true); }
  };
  $("rowexample").hidden = !about.dataset;
  $("table").hidden = false;
  if (about.dataset) await $("rowexample").onclick();
  else setRow(about.columns.map(() => NaN));
}

// Start

async function start() {
  const models = await (await send("page/models")).json();
  const wanted = new URLSearchParams(location.search).get("model");
  state.about = models.find((one) => one.name === wanted) || models[0];
  for (const one of models) {
    const option = element("option", { value: one.name, text: one.name });
    option.selected = one === state.about;
    $("model").append(option);
  }
  $("choice").hidden = models.length < 2;
  $("model").onchange = () => { location.search = `?model=${encodeURIComponent($("model").value)}`; };
  $("name").textContent = `· ${state.about.name}`;
  document.title = `${state.about.name} · netspec`;
  $("endpoint").textContent = new URL(`v2/models/${state.about.name}/infer`, location.href).href;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state.about.kind === "images" && drawBoard());
  if (state.about.kind === "images") { bindImages(); await startImages(); } else await startTable();
}

start().catch((error) => say(error.message, true));
