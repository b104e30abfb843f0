"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const rich = (tag, html, attributes = {}) => { const node = el(tag, attributes); node.innerHTML = html; return node; };
const colour = mark => `var(--c${mark.colour})`;
const number = value => value === null ? "–" : typeof value === "number" ? String(+value.toPrecision(5)).replace("-", "−") : value;

function state() {
  const given = new URLSearchParams(location.hash.slice(1));
  const stage = data.stages.find(s => s.id === given.get("stage")) || data.stages[0];
  const at = {};
  for (const control of data.controls) {
    const found = control.stops.findIndex(([label]) => label === given.get(control.name));
    at[control.name] = found < 0 ? control.start : found;
  }
  return {stage, at};
}
function address(stage, at) {
  const parts = new URLSearchParams({stage});
  for (const control of data.controls)
    if (at[control.name] !== control.start) parts.set(control.name, control.stops[at[control.name]][0]);
  return "#" + parts;
}
function go(stage, at, push) {
  const target = address(stage, at);
  if (target === location.hash) return;
  history[push ? "pushState" : "replaceState"](null, "", target);
  draw();
}
const put = (name, index) => { const s = state(); go(s.stage.id, {...s.at, [name]: index}, false); };

function table(heads, rows, states) {
  const body = rows.map((row, i) => el("tr", {class: (states || [])[i] || ""},
    ...row.map((cell, j) => rich(j ? "td" : "th", cell, j ? {} : {scope: "row"}))));
  return el("div", {class: "wide", tabindex: "0"}, el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map(head => rich("th", head, {scope: "col"})))), el("tbody", {}, ...body)));
}
function grid(block) {
  const shade = value => value ? `background: color-mix(in srgb, var(--c${value > 0 ? 1 : 2}) ${Math.round(Math.abs(value) * 55)}%, var(--bg))` : "background: var(--soft)";
  const cell = ([text, value, kind, name, stop]) => {
    const words = {cut: "pruned", here: "chosen", patch: "in the window", kept: "kept"}[kind];
    const attributes = {class: kind, style: shade(value)};
    if (words) attributes["aria-label"] = `${text}, ${words}`;
    if (!name) return el("td", {}, el("span", attributes, text));
    const button = el("button", {...attributes, type: "button", "data-sets": `${name}:${stop}`, "aria-pressed": kind === "here"}, text);
    for (const kind of ["pointerenter", "focus", "click"]) button.addEventListener(kind, () => put(name, stop));
    return el("td", {}, button);
  };
  const across = (block.rows[0] || []).map((_, j) => el("th", {scope: "col"}, String(j)));
  return el("div", {class: "wide"}, el("table", {},
    el("thead", {}, el("tr", {}, el("th", {"aria-label": `${block.down} \\ ${block.across}`}, ""), ...across)),
    el("tbody", {}, ...block.rows.map((row, i) => el("tr", {}, el("th", {scope: "row"}, String(i)), ...row.map(cell))))));
}
function chart(block, width) {
  const marks = [], P = Plot;
  let thick = 1 + 2 * block.marks.filter(m => m.shape === "arrow").length;
  for (const mark of block.marks) {
    const points = mark.points, stroke = colour(mark);
    if (mark.shape === "line") marks.push(P.line(points, {x: p => p[0], y: p => p[1], stroke, strokeWidth: 2}));
    if (mark.shape === "dots") marks.push(P.dot(points, {x: p => p[0], y: p => p[1], fill: stroke, r: points.length > 60 ? 2.5 : 4.5}));
    if (mark.shape === "bars") marks.push(P.rect(points, {x1: p => p[0], x2: p => p[1], y1: p => 0, y2: p => p[2], fill: stroke, fillOpacity: .7}));
    if (mark.shape === "arrow") { marks.push(P.arrow(points, {x1: p => p[0], y1: p => p[1], x2: p => p[2], y2: p => p[3], stroke, strokeWidth: thick, headLength: 10 + 10 / thick, strokeLinecap: "butt"})); thick -= 2; }
    if (mark.shape === "across") marks.push(P.ruleY(points, {y: p => p[0], stroke, strokeWidth: 2, strokeDasharray: "5 4"}));
    if (mark.shape === "upright") marks.push(P.ruleX(points, {x: p => p[0], stroke, strokeWidth: 2, strokeDasharray: "5 4"}));
  }
  if (block.square) marks.unshift(P.ruleX([0], {stroke: "var(--line)"}), P.ruleY([0], {stroke: "var(--line)"}));
  else if (block.marks.some(m => m.shape === "bars")) marks.push(P.ruleY([0], {stroke: "var(--fg)"}));
  const options = {width, marks, marginLeft: 56, marginRight: 16, marginBottom: 40, x: {label: block.x, labelAnchor: "center", nice: block.square}, y: {label: block.y, grid: true, nice: true, type: block.log ? "log" : "linear", tickFormat: block.log ? "~g" : undefined}};
  if (/^(rank|step|example|element)/.test(block.x)) {
    const across = block.marks.flatMap(mark => mark.shape === "across" ? [] : mark.points.flatMap(point => point.length > 1 ? point.slice(0, -1) : point));
    const whole = d3.ticks(Math.min(...across), Math.max(...across), 10).filter(Number.isInteger);
    if (whole.length > 1) Object.assign(options.x, {ticks: whole, tickFormat: "d"});
  }
  if (block.square) options.aspectRatio = 1; else options.height = Math.max(190, Math.min(280, width * .5));
  return P.plot(options);
}
function plot(block) {
  const room = el("div", {role: "img", "aria-label": `${block.plain}; ${block.marks.map(m => m.name).join(", ")}`});
  const legend = el("ul", {class: "legend"}, ...block.marks.map(mark => {
    const rule = ["across", "upright"].includes(mark.shape);
    return el("li", {}, el("i", {class: rule ? "rule" : "", style: `background: ${colour(mark)}; border-color: ${colour(mark)}`}), rule ? `${mark.name} (${number(mark.points[0][0])})` : mark.name);
  }));
  const rows = block.marks.flatMap(mark => mark.points.map(point => {
    const shown = mark.shape === "arrow" ? point.slice(2) : point;
    if (shown.length === 1) return mark.shape === "across" ? [mark.name, "", number(shown[0])] : [mark.name, number(shown[0]), ""];
    const x = shown.length > 2 ? `${number(shown[0])} … ${number(shown[1])}` : number(shown[0]);
    return [mark.name, x, number(shown[shown.length - 1])];
  }));
  const numbers = el("details", {}, el("summary", {}, "the numbers of this figure"));
  numbers.addEventListener("toggle", () => { if (numbers.open && numbers.children.length === 1) numbers.append(table(["series", block.x, block.y], rows)); });
  const figure = el("figure", {class: block.square ? "plot square" : "plot"}, rich("figcaption", block.caption), room, legend, numbers);
  figure.fit = () => {
    const width = Math.floor(figure.clientWidth);
    if (width && width !== figure.width) {
      figure.width = width;
      const svg = chart(block, width);
      svg.setAttribute("aria-hidden", "true");
      room.replaceChildren(svg);
    }
  };
  return figure;
}
function block(content) {
  if (content.kind === "plot") return plot(content);
  const inside = content.kind === "grid" ? grid(content) : table(content.heads, content.rows, content.states);
  return el("figure", {class: content.kind}, rich("figcaption", content.caption), inside);
}
const fit = () => document.querySelectorAll(".stage:not([hidden]) .plot").forEach(figure => figure.fit());

function controls(stage, at) {
  for (const control of data.controls) {
    const box = document.querySelector(`[data-control="${control.name}"]`), field = $("c-" + control.name);
    box.hidden = !stage.controls.includes(control.name);
    const [label, note] = control.stops[at[control.name]];
    field.value = at[control.name];
    if (control.kind !== "slider") continue;
    field.setAttribute("aria-valuetext", note ? `${label}, ${note}` : label);
    box.querySelector("output").textContent = label;
    for (const button of box.querySelectorAll(".notes button")) button.setAttribute("aria-pressed", button.dataset.label === label);
  }
}
function fill(section, stage, at) {
  const [formula, values, says, blocks] = stage.fills[stage.controls.map(name => at[name]).join(",")];
  const numbers = section.querySelector(".numbers"), sentence = section.querySelector(".says"), room = section.querySelector(".blocks");
  numbers.innerHTML = data.pool[formula];
  for (const slot of numbers.querySelectorAll("mn[data-n]")) slot.textContent = data.pool[values][slot.dataset.n];
  if (sentence.shown !== says) { sentence.innerHTML = data.pool[says]; sentence.shown = says; }
  const focused = document.activeElement.dataset.sets;
  blocks.forEach((place, i) => {
    const old = room.children[i];
    if (old && old.place === place) return;
    const opened = old && old.querySelector("details[open]");
    const made = block(data.pool[place]);
    made.place = place;
    if (old) old.replaceWith(made); else room.append(made);
    if (opened && made.querySelector("details")) made.querySelector("details").open = true;
  });
  while (room.children.length > blocks.length) room.lastChild.remove();
  const again = focused && room.querySelector(`[data-sets="${focused}"]`);
  if (again && document.activeElement !== again) again.focus({preventScroll: true});
}
function draw() {
  const {stage, at} = state(), index = data.stages.indexOf(stage);
  document.querySelectorAll(".stage").forEach(section => { section.hidden = section.id !== "s-" + stage.id; });
  for (const link of document.querySelectorAll("#steps a")) {
    link.href = address(link.dataset.stage, at);
    if (link.dataset.stage === stage.id) link.setAttribute("aria-current", "step"); else link.removeAttribute("aria-current");
  }
  const where = `step ${index + 1} of ${data.stages.length}: ${document.querySelector("#steps a[aria-current] span").textContent}`;
  if ($("where").textContent !== where) $("where").textContent = where;
  $("lead").hidden = index > 0;
  $("back").disabled = index === 0;
  $("next").disabled = index === data.stages.length - 1;
  controls(stage, at);
  fill($("s-" + stage.id), stage, at);
  fit();
}
function step(by) {
  const {stage, at} = state(), next = data.stages[data.stages.indexOf(stage) + by];
  if (next) go(next.id, at, true);
  return Boolean(next);
}
let playing = null;
function play(on) {
  clearInterval(playing);
  playing = on ? setInterval(() => { if (!step(1)) play(false); }, 6000) : null;
  $("play").setAttribute("aria-pressed", on);
  $("play").textContent = on ? "❚❚ pause" : "▶ play";
}
$("back").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("play").addEventListener("click", () => {
  const {stage, at} = state();
  if (!playing && stage === data.stages[data.stages.length - 1]) go(data.stages[0].id, at, true);
  play(!playing);
});
$("controls").addEventListener("submit", event => event.preventDefault());
for (const control of data.controls) {
  const field = $("c-" + control.name);
  field.addEventListener("input", () => put(control.name, Number(field.value)));
  for (const button of document.querySelectorAll(`[data-control="${control.name}"] .notes button`))
    button.addEventListener("click", () => put(control.name, control.stops.findIndex(([label]) => label === button.dataset.label)));
}
addEventListener("hashchange", draw);
addEventListener("popstate", draw);
addEventListener("resize", fit);
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.target.closest("input, select, pre, .wide, .scroll, .grid")) return;
  if (event.key === "ArrowRight") step(1);
  if (event.key === "ArrowLeft") step(-1);
});
draw();
