"use strict";
// Zoom, and the values under the pointer. Without it the page shows everything at once, as it does in print.
const values = JSON.parse(document.getElementById("values").textContent);
const readout = document.getElementById("readout");
const HEIGHT = 1000, FULL = 255, NEAREST = 2000;
const BASES = ["face and voice", "face alone", "voice alone", ""];
const PICTURE_GAP = 4, PAPER = 640;

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const numbers = (text) => new Uint32Array(bytes(text).buffer);
for (const source of values.sources) {
  for (const series of source.series) {
    series.start = numbers(series.start);
    series.end = numbers(series.end);
    for (const name of ["levels", "chosen", "basis", "alone", "begins"]) series[name] = bytes(series[name]);
  }
}
const classes = values.labels.length;

function clock(ms, tenths) {
  const tens = tenths ? Math.round(Math.abs(ms) / 100) : 10 * Math.round(Math.abs(ms) / 1000);
  const sign = ms < 0 && tens ? "-" : "";
  const hours = Math.floor(tens / 36000), minutes = Math.floor(tens / 600) % 60;
  const seconds = (tens % 600) / 10;
  const shown = tenths ? seconds.toFixed(1).padStart(4, "0") : String(seconds).padStart(2, "0");
  return sign + (hours ? `${hours}:${String(minutes).padStart(2, "0")}:${shown}` : `${minutes}:${shown}`);
}

// The first answer that ends after a time, or the number of answers.
function firstAfter(series, ms) {
  let low = 0, high = series.end.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (series.end[middle] > ms) high = middle; else low = middle + 1;
  }
  return low;
}

const begins = (series, i) => series.begins[i] === 1;

// As mma_edge.report.columns.for_screen: of each column the two answers that are furthest apart, and the surest of each
// label.
function forScreen(series, from, span, columns) {
  const first = Math.max(0, firstAfter(series, from) - 1);
  const last = Math.min(series.end.length, firstAfter(series, from + span) + 2);
  const kept = [];
  for (let start = first; start < last; ) {
    const column = Math.floor(((series.end[start] - from) * columns) / span);
    let stop = start + 1;
    while (stop < last && Math.floor(((series.end[stop] - from) * columns) / span) === column) stop++;
    const few = stop - start <= 2;
    const telling = new Set(few ? [] : [...apart(series, start, stop), ...surest(series, start, stop)]);
    for (let i = start; i < stop; i++) {
      const beside = begins(series, i) || i + 1 === series.end.length || begins(series, i + 1);
      if (few || beside || telling.has(i)) kept.push(i);
    }
    start = stop;
  }
  return kept;
}

function apart(series, start, stop) {
  const sums = new Array(classes).fill(0), count = stop - start;
  for (let i = start; i < stop; i++) for (let k = 0; k < classes; k++) sums[k] += series.levels[i * classes + k];
  const furthest = (distance) => {
    let best = -1, found = start;
    for (let i = start; i < stop; i++) {
      let sum = 0;
      for (let k = 0; k < classes; k++) sum += Math.abs(distance(series.levels[i * classes + k], k));
      if (sum > best) { best = sum; found = i; }
    }
    return found;
  };
  const one = furthest((level, k) => count * level - sums[k]);
  return [one, furthest((level, k) => level - series.levels[one * classes + k])];
}

function surest(series, start, stop) {
  const best = new Map();
  for (let i = start; i < stop; i++) {
    const level = Math.max(...series.levels.subarray(i * classes, (i + 1) * classes));
    const found = best.get(series.chosen[i]);
    if (!found || level > found[0]) best.set(series.chosen[i], [level, i]);
  }
  return [...best.values()].map(([, i]) => i);
}

// As mma_edge.report.ribbon.area_paths; times are from the left edge.
function areaPaths(series, kept, from) {
  const runs = [];
  for (const i of kept) if (begins(series, i) || !runs.length) runs.push([i]); else runs[runs.length - 1].push(i);
  const paths = [];
  for (let k = classes - 1; k >= 0; k--) {
    const top = (i) => {
      let sum = 0, total = 0;
      for (let j = 0; j < classes; j++) {
        total += series.levels[i * classes + j];
        if (j <= k) sum += series.levels[i * classes + j];
      }
      total = Math.max(total, 1);
      return HEIGHT - Math.floor((2 * HEIGHT * sum + total) / (2 * total));
    };
    paths.push(runs.map((run) => {
      const steps = run.map((i) => `V${top(i)}H${series.end[i] - from}`).join("");
      return `M${series.start[run[0]] - from},${HEIGHT}${steps}V${HEIGHT}Z`;
    }).join(""));
  }
  return paths;
}

function strip(series, kept, from, of, top, bottom) {
  let path = "", left = null;
  kept.forEach((i, number) => {
    const next = kept[number + 1];
    if (!of(i)) return;
    if (left === null) left = begins(series, i) || number === 0 ? series.start[i] : series.end[kept[number - 1]];
    if (next === undefined || !of(next) || begins(series, next)) {
      path += `M${left - from},${top}H${series.end[i] - from}V${bottom}H${left - from}Z`;
      left = null;
    }
  });
  return path;
}

function draw(plot, series, from, span) {
  const kept = forScreen(series, from, span, Math.max(50, Math.min(1000, Math.round(plot.clientWidth / 2))));
  const fill = (kind, paths) => {
    const svg = plot.querySelector(`.${kind}`);
    if (!svg) return;
    svg.setAttribute("viewBox", `0 0 ${span} ${HEIGHT}`);
    paths.forEach((path, k) => svg.children[k].setAttribute("d", path));
  };
  fill("area", areaPaths(series, kept, from));
  const is = (name, value) => (i) => series[name][i] === value;
  const chosen = values.labels.map((_, k) => strip(series, kept, from, is("chosen", k), 0, HEIGHT));
  fill("chosen", [...chosen, strip(series, kept, from, is("chosen", classes), 375, 625)]);
  fill("basis", [[0, 1000], [0, 500], [500, 1000]].map((edges, k) => strip(series, kept, from, is("basis", k), ...edges)));
  fill("alone", [strip(series, kept, from, is("alone", 1), 0, HEIGHT)]);
}

class Timeline {
  constructor(root, toolbar) {
    this.root = root;
    this.toolbar = toolbar;
    this.number = Number(root.dataset.source);
    this.source = values.sources[this.number];
    this.plots = [...root.querySelectorAll(".plot[role=slider]")];
    this.from = 0;
    this.span = this.source.span;
    for (const button of toolbar.querySelectorAll("button")) {
      button.addEventListener("click", () => this.turn(button.dataset.zoom));
    }
    this.plots.forEach((plot) => new Reader(this, plot));
    this.show();
  }

  turn(what, at = this.from + this.span / 2) {
    const { from, span } = this;
    if (what === "in") this.look(at - (at - from) / 2, span / 2);
    if (what === "out") this.look(at - (at - from) * 2, span * 2);
    if (what === "back") this.look(from - span / 2, span);
    if (what === "on") this.look(from + span / 2, span);
    if (what === "all") this.look(0, this.source.span);
  }

  look(from, span) {
    this.span = Math.round(Math.min(this.source.span, Math.max(Math.min(NEAREST, this.source.span), span)));
    this.from = Math.round(Math.min(this.source.span - this.span, Math.max(0, from)));
    this.show();
  }

  shows(ms) {
    if (ms < this.from || ms > this.from + this.span) this.look(ms - this.span / 2, this.span);
  }

  show() {
    const { from, span } = this;
    this.root.style.setProperty("--from", from);
    this.root.style.setProperty("--span", span);
    for (const plot of this.plots) draw(plot, this.source.series[Number(plot.dataset.series)], from, span);
    for (const svg of this.root.querySelectorAll(".bars")) {
      const rows = svg.viewBox.baseVal.height;
      svg.setAttribute("viewBox", `${from} 0 ${span} ${rows}`);
    }
    this.root.querySelectorAll(".axis").forEach((axis) => this.tick(axis));
    this.root.querySelectorAll(".pictures").forEach((strip) => this.choose(strip));
    const offset = 1000 * this.source.from, fine = span < 20000, whole = span === this.source.span;
    this.toolbar.querySelector("output").textContent =
      `${clock(offset + from, fine)} to ${clock(offset + from + span, fine)}` + (whole ? ", all of it" : "");
    for (const [what, off] of [["out", whole], ["all", whole], ["back", from === 0], ["in", span <= NEAREST],
      ["on", from + span >= this.source.span]]) {
      this.toolbar.querySelector(`[data-zoom=${what}]`).disabled = off;
    }
  }

  tick(axis) {
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
    const most = Math.max(2, Math.min(12, Math.floor(axis.clientWidth / 75)));
    const step = 1000 * (steps.find((each) => this.span / 1000 / each <= most) || 86400);
    const offset = Math.round(1000 * this.source.from), ticks = [];
    for (let ms = Math.ceil((this.from + offset) / step) * step; ms - offset <= this.from + this.span; ms += step) {
      const span = document.createElement("span");
      span.style.setProperty("--t", ms - offset);
      span.textContent = clock(ms, step < 1000);
      ticks.push(span);
    }
    axis.replaceChildren(...ticks);
  }

  // As many pictures as have room, none over another.
  choose(strip, room = strip.clientWidth) {
    let free = 0;
    const width = strip.clientHeight * parseFloat(strip.style.getPropertyValue("--wide"));
    for (const image of strip.children) {
      const middle = ((this.time(image) - this.from) / this.span) * room;
      const x = Math.min(Math.max(middle - width / 2, 0), room - width);
      image.hidden = middle < 0 || middle > room || x < free;
      if (!image.hidden) free = x + width + PICTURE_GAP;
    }
  }

  time(image) {
    return Number(image.style.getPropertyValue("--t"));
  }
}

class Reader {
  constructor(timeline, plot) {
    this.timeline = timeline;
    this.plot = plot;
    this.series = timeline.source.series[Number(plot.dataset.series)];
    this.pictures = [...plot.parentElement.querySelectorAll(".pictures img")];
    this.cursor = this.add("cursor");
    this.dragged = this.add("chosen-span");
    this.at = 0;
    this.pressed = null;
    plot.addEventListener("pointermove", (event) => this.move(event));
    plot.addEventListener("pointerdown", (event) => this.press(event));
    plot.addEventListener("pointerup", (event) => this.release(event));
    plot.addEventListener("pointerleave", () => { if (this.pressed === null) this.hide(); });
    plot.addEventListener("dblclick", (event) => timeline.turn("in", this.ms(event)));
    plot.addEventListener("focus", () => { if (plot.matches(":focus-visible")) this.tell(this.at); });
    plot.addEventListener("blur", () => this.hide());
    plot.addEventListener("keydown", (event) => this.key(event));
    this.speak();
  }

  add(name) {
    const line = document.createElement("i");
    line.className = name;
    line.style.display = "none";
    return this.plot.appendChild(line);
  }

  ms(event) {
    const edges = this.plot.getBoundingClientRect();
    return this.timeline.from + ((event.clientX - edges.left) / edges.width) * this.timeline.span;
  }

  press(event) {
    if (event.pointerType === "mouse" && event.button === 0) {
      this.pressed = this.ms(event);
      this.plot.setPointerCapture(event.pointerId);
    } else this.move(event);
  }

  move(event) {
    const ms = this.ms(event);
    if (this.pressed !== null) {
      const [from, to] = [Math.min(ms, this.pressed), Math.max(ms, this.pressed)];
      this.put(this.dragged, from);
      this.dragged.style.width = `${(100 * (to - from)) / this.timeline.span}%`;
      return;
    }
    const i = Math.min(firstAfter(this.series, ms), this.series.end.length - 1);
    const there = ms >= this.series.start[i] && ms <= this.series.end[i];
    this.tell(i, ms, !there);
  }

  release(event) {
    if (this.pressed === null) return;
    const from = Math.min(this.ms(event), this.pressed), to = Math.max(this.ms(event), this.pressed);
    this.pressed = null;
    this.dragged.style.display = "none";
    if (to - from > this.timeline.span / 100) this.timeline.look(from, to - from);
  }

  key(event) {
    const last = this.series.end.length - 1;
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -20, PageUp: 20 };
    if (event.key in steps) this.tell(Math.min(last, Math.max(0, this.at + steps[event.key])));
    else if (event.key === "Home") this.tell(0);
    else if (event.key === "End") this.tell(last);
    else if (event.key === "+") this.timeline.turn("in", this.middle(this.at));
    else if (event.key === "-") this.timeline.turn("out", this.middle(this.at));
    else if (event.key === "0") this.timeline.turn("all");
    else if (event.key === "Escape") this.hide();
    else return;
    event.preventDefault();
  }

  put(line, ms) {
    line.style.setProperty("--t", ms);
    line.style.display = "";
  }

  hide() {
    readout.hidden = true;
    this.cursor.style.display = "none";
    this.pressed = null;
    this.dragged.style.display = "none";
  }

  label(i) {
    return this.series.chosen[i] === classes ? values.uncertain[0] : values.labels[this.series.chosen[i]];
  }

  percent(i, k) {
    let total = 0;
    for (let j = 0; j < classes; j++) total += this.series.levels[i * classes + j];
    return Math.round((100 * this.series.levels[i * classes + k]) / Math.max(total, 1));
  }

  // Of the time that an answer stands for.
  middle(i) {
    return (this.series.start[i] + this.series.end[i]) / 2;
  }

  speak() {
    const order = values.labels.map((_, k) => k).sort((a, b) => this.percent(this.at, b) - this.percent(this.at, a));
    const most = order.slice(0, 3).map((k) => `${values.labels[k]} ${this.percent(this.at, k)} percent`);
    const seconds = this.middle(this.at) / 1000 + this.timeline.source.from;
    this.plot.setAttribute("aria-valuenow", seconds.toFixed(1));
    this.plot.setAttribute("aria-valuetext", `${clock(1000 * seconds, true)}, ${this.label(this.at)}: ${most.join(", ")}`);
  }

  // The values of an answer at a time, or that there is none.
  tell(i, ms = this.middle(i), empty = false) {
    const { timeline, series, plot } = this;
    if (!empty) {
      this.at = i;
      timeline.shows(ms);
      this.speak();
    }
    this.put(this.cursor, ms);
    const offset = 1000 * timeline.source.from;
    const lines = [];
    const image = !empty && this.nearest(ms);
    if (image) {
      const copy = document.createElement("img");
      copy.src = image.src;
      copy.alt = "";
      lines.push(copy);
    }
    const line = (text, strong) => {
      const p = document.createElement("p");
      p.appendChild(document.createElement(strong ? "b" : "span")).textContent = text;
      lines.push(p);
    };
    line(`${series.name}, ${clock(offset + ms, true)}`);
    if (empty) line("no answer", true);
    else {
      line(this.label(i), true);
      line(BASES[series.basis[i]] + (series.alone[i] ? ", speaks" : ""));
      lines.push(this.bars(i));
    }
    const near = timeline.span / 200;
    for (const [from, to, text] of timeline.source.told) if (ms >= from - near && ms <= to + near) line(text);
    readout.replaceChildren(...lines);
    readout.hidden = false;
    const edges = plot.getBoundingClientRect();
    const x = edges.left + ((ms - timeline.from) / timeline.span) * edges.width;
    const wide = document.documentElement.clientWidth;
    const left = x + 16 + readout.offsetWidth < wide ? x + 16 : Math.max(4, x - 16 - readout.offsetWidth);
    readout.style.left = `${left + window.scrollX}px`;
    const below = edges.bottom + 6 + readout.offsetHeight < window.innerHeight || edges.top < readout.offsetHeight + 6;
    readout.style.top = `${(below ? edges.bottom + 6 : edges.top - 6 - readout.offsetHeight) + window.scrollY}px`;
  }

  bars(i) {
    const list = document.createElement("ul");
    for (let k = classes - 1; k >= 0; k--) {
      const item = document.createElement("li");
      item.appendChild(document.createElement("span")).textContent = values.labels[k];
      const bar = item.appendChild(document.createElement("u"));
      bar.style.background = values.colours[k];
      bar.style.width = `${Math.max(this.percent(i, k), 1)}%`;
      item.appendChild(document.createElement("b")).textContent = `${this.percent(i, k)} %`;
      list.appendChild(item);
    }
    return list;
  }

  nearest(ms) {
    let best = null, away = Math.max(3000, this.timeline.source.span / 100);
    for (const image of this.pictures) {
      const distance = Math.abs(this.timeline.time(image) - ms);
      if (distance < away) [best, away] = [image, distance];
    }
    return best;
  }
}

document.documentElement.classList.add("live");
const timelines = [...document.querySelectorAll(".timeline")].map(
  (root) => new Timeline(root, document.querySelector(`.toolbar[data-source="${root.dataset.source}"]`)),
);
let waiting = 0;
window.addEventListener("resize", () => {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => timelines.forEach((timeline) => timeline.show()));
});
// Paper is narrower than most screens.
window.addEventListener("beforeprint", () => {
  readout.hidden = true;
  for (const timeline of timelines) {
    timeline.root.querySelectorAll(".pictures").forEach((strip) => timeline.choose(strip, Math.min(strip.clientWidth, PAPER)));
  }
});
window.addEventListener("afterprint", () => timelines.forEach((timeline) => timeline.show()));
