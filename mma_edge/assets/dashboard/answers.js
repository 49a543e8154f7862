"use strict";
const STALE_S = 2, GONE_S = 60, MOST_CARDS = 12, LEAST_SPAN_S = 30;

// Everything known of one face of one source, or of its voice.
class Card {
  constructor(source, record, labels) {
    Object.assign(this, { source, track: record.track_id, labels, records: [], record });
    this.root = element("article", "", null, "card");
    const what = element("div", "", this.root, "what");
    this.title = element("h3", "", what);
    this.label = element("span", "", what, "label");
    this.speaks = element("span", "speaks", what, "tag");
    this.rests = element("p", "", this.root, "rests");
    const body = element("div", "", this.root, "body");
    this.shares = element("dl", "", body, "shares");
    this.rows = labels.map(label => this.row(label));
    this.chart = element("div", "", body, "chart");
    this.chart.setAttribute("role", "img");
    this.plot = null;
  }

  row(label) {
    const name = element("dt", "", this.shares);
    name.append(stroke(label));
    element("span", label, name);
    const bar = element("dd", "", this.shares, "bar"), fill = element("i", "", bar);
    bar.setAttribute("aria-hidden", "true");
    fill.style.background = `var(${styleOf(label).colour})`;
    return { name, fill, number: element("dd", "", this.shares) };
  }

  add(record) {
    const last = this.records.at(-1);
    if (last && record.end_s <= last.end_s) this.records = []; // the source began anew
    this.records.push(record);
    this.record = record;
    while (this.records.length > 2000) this.records.shift();
  }

  // `view`: of its source; `several`: sources.
  show(view, spanS, several, gate) {
    const { record } = this, nowS = view.newestS, [top, share] = best(record), ageS = nowS - record.end_s;
    write(this.title, several ? `${this.source}: ${face(record)}` : face(record));
    write(this.label, record.label === top ? `${top} ${percent(share)}` : `${record.label} (${top} ${percent(share)})`);
    this.speaks.hidden = !view.speaks(record);
    this.root.classList.toggle("gone", ageS > STALE_S);
    write(this.rests, ageS > STALE_S ? `gone for ${clock(ageS)}` : this.reasons(record, gate));
    this.root.dataset.record = JSON.stringify(record);
    this.labels.forEach((label, n) => {
      const { name, fill, number } = this.rows[n], value = record.probabilities[label];
      fill.style.transform = `scaleX(${value})`;
      write(number, percent(value));
      for (const each of [name, number]) each.classList.toggle("best", label === top);
    });
    this.draw(view, spanS);
  }

  reasons(record, gate) {
    const parts = [`from ${restsOn(record)}`];
    const unheard = !record.modalities.includes("audio");
    if (unheard && record.voice !== null && gate !== null && record.voice < gate) parts.push(`speech ${percent(record.voice)}: no voice`);
    if (record.speaking != null) parts.push(`mouth with the voice ${percent(record.speaking)}`);
    parts.push(`${clock(record.start_s)} to ${clock(record.end_s)}`, `age ${Math.round(record.age_ms)} ms`);
    return parts.join(" · ");
  }

  // All faces of a source over the same time, which begins with the run and then goes along.
  draw(view, spanS) {
    const nowS = view.newestS, fromS = Math.max(nowS - spanS, Math.min(view.firstS, nowS));
    this.span = [fromS, Math.max(nowS, fromS + LEAST_SPAN_S)];
    if (!this.plot) this.make();
    const from = this.records.findIndex(record => record.end_s >= nowS - spanS - 10);
    const some = from < 0 ? [] : this.records.slice(from), rows = [[], ...this.labels.map(() => [])];
    some.forEach((record, n) => {
      // No line across a time without answers.
      if (n && record.end_s - some[n - 1].end_s > STALE_S) {
        rows[0].push(record.end_s - 0.01);
        for (const row of rows.slice(1)) row.push(null);
      }
      rows[0].push(record.end_s);
      this.labels.forEach((label, index) => rows[index + 1].push(record.probabilities[label]));
    });
    this.plot.setData(rows);
    this.chart.setAttribute("aria-label", `Probabilities of the last ${clock(spanS)}; now ${best(this.record).map((v, n) => n ? percent(v) : v).join(" ")}`);
  }

  make() {
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--fill"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const width = this.chart.clientWidth || 300;
    this.plot = new uPlot({
      width, height: 152, padding: [8, 8, 0, 0], cursor: { show: false }, legend: { show: false },
      scales: { x: { time: false, range: () => this.span }, y: { range: [0, 1] } },
      axes: [
        { ...axis, size: 22, space: 55, values: (plot, all) => all.map(value => value < 0 ? "" : clock(value)) },
        { ...axis, size: 42, space: 26, values: (plot, all) => all.map(value => `${Math.round(100 * value)} %`) },
      ],
      series: [{}, ...this.labels.map(label => ({
        stroke: colour(styleOf(label).colour), dash: styleOf(label).dash, width: 1.75, points: { show: false },
      }))],
      hooks: { draw: [plot => this.drawMarks(plot)] },
    }, [[], ...this.labels.map(() => [])], this.chart);
    this.width = width;
    this.resized = new ResizeObserver(() => {
      const wide = this.chart.clientWidth;
      if (this.plot && wide && wide !== this.width) this.plot.setSize({ width: this.width = wide, height: 152 });
    });
    this.resized.observe(this.chart);
  }

  drawMarks(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("--ink");
    ctx.setLineDash([3, 3]);
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    for (const mark of marks) {
      const at = (mark.times_s || {})[this.source];
      if (at == null || at < this.span[0] || at > this.span[1]) continue;
      const x = plot.valToPos(at, "x", true);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.fillText(mark.key || mark.text.slice(0, 12), x + 3, bbox.top + 10 * devicePixelRatio);
    }
    ctx.restore();
  }

  // Colours are taken when it is made.
  remake() {
    if (this.plot) { this.plot.destroy(); this.resized.disconnect(); }
    this.plot = null;
  }

  end() {
    this.remake();
    this.root.remove();
  }
}

// A short line as the chart draws it.
function stroke(label) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS(svg.namespaceURI, "line");
  for (const [name, value] of Object.entries({ width: 18, height: 8, "aria-hidden": "true" })) svg.setAttribute(name, value);
  for (const [name, value] of Object.entries({ x1: 0, x2: 18, y1: 4, y2: 4 })) line.setAttribute(name, value);
  const { colour: variable, dash } = styleOf(label);
  line.style.stroke = `var(${variable})`;
  line.style.strokeWidth = "2.5";
  line.style.strokeDasharray = dash.join(" ");
  svg.append(line);
  return svg;
}

const cards = new Map(); // source and track -> Card
let marks = []; // of the session that goes on

function showCards(views, about, spanS) {
  for (const [key, card] of cards) {
    const view = views.get(card.source), ageS = view.newestS - card.record.end_s;
    // A voice is shown only until a face appears, as long as that stays.
    const silenced = card.track === null && [...cards.values()].some(other => other.source === card.source && other.track !== null && view.newestS - other.record.end_s < STALE_S);
    if (ageS > GONE_S || (silenced && ageS > STALE_S)) { card.end(); cards.delete(key); }
  }
  const order = (a, b) => isGone(a) - isGone(b) || a.source.localeCompare(b.source) || (a.track ?? 0) - (b.track ?? 0);
  const isGone = card => views.get(card.source).newestS - card.record.end_s > STALE_S;
  const shown = [...cards.values()].sort(order);
  shown.slice(MOST_CARDS).forEach(card => { card.end(); for (const [key, each] of cards) if (each === card) cards.delete(key); });
  const place = find("cards"), kept = shown.slice(0, MOST_CARDS);
  kept.forEach((card, n) => { if (place.children[n] !== card.root) place.insertBefore(card.root, place.children[n] || null); });
  kept.forEach(card => card.show(views.get(card.source), spanS, views.size > 1, about.options.voice_gate));
  find("none").hidden = kept.length > 0;
}
