"use strict";
const MOST_PIXELS = 1600; // of a canvas, across

// One source: its picture with boxes, its sound.
class SourceView {
  constructor(name) {
    this.name = name;
    this.answers = new Map(); // track -> newest record
    this.newestS = 0; // of its clock
    this.firstS = Infinity; // of the answers
    this.root = element("figure", "", find("sources"), "source");
    this.caption = element("figcaption", "", this.root);
    element("strong", name, this.caption);
    this.facts = element("span", "Waiting for a picture…", this.caption, "soft");
    this.canvas = element("canvas", "", this.root);
    this.canvas.setAttribute("role", "img");
    this.canvas.hidden = true;
    this.sound = element("div", "", this.root, "sound");
    this.sound.hidden = true;
    [this.level, this.levelText] = this.meter("Sound");
    [this.speech, this.speechText] = this.meter("Speech");
    this.gate = element("b", "", this.speech.parentNode);
    this.image = this.frame = null;
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.canvas);
  }

  end() {
    this.resized.disconnect();
    this.root.remove();
  }

  meter(title) {
    const label = element("span", title, this.sound), bar = element("div", "", this.sound, "bar");
    bar.setAttribute("role", "meter");
    bar.setAttribute("aria-label", title);
    return [element("i", "", bar), element("span", "", this.sound, "number")];
  }

  fill(bar, text, share, said) {
    bar.style.transform = `scaleX(${Math.max(0, Math.min(1, share))})`;
    bar.parentNode.setAttribute("aria-valuenow", Math.round(100 * share));
    bar.parentNode.setAttribute("aria-valuetext", said);
    write(text, said);
  }

  // A picture and the boxes in it, of one message.
  async show(frame, jpeg) {
    const image = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    if (this.image) this.image.close();
    this.image = image;
    this.frame = frame;
    this.newestS = frame.time_s;
    this.canvas.hidden = false;
    this.draw();
    this.canvas.dataset.timeS = frame.time_s;
    this.canvas.dispatchEvent(new CustomEvent("shown", { detail: frame }));
  }

  draw() {
    if (!this.image) return;
    const { canvas, image } = this, pixels = Math.min(MOST_PIXELS, canvas.clientWidth * devicePixelRatio) || image.width;
    const width = Math.round(pixels), height = Math.round(width * image.height / image.width);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const paper = canvas.getContext("2d"), scale = width / this.frame.size[0];
    paper.drawImage(image, 0, 0, width, height);
    const unit = Math.max(11, 13 * devicePixelRatio * Math.min(1, canvas.clientWidth / 480));
    for (const found of this.frame.faces) this.drawBox(paper, found, scale, unit);
    const said = this.frame.faces.map(found => this.tag(found.track_id).join(" "));
    canvas.setAttribute("aria-label", `${this.name}: ${said.join("; ") || "no face"}`);
  }

  // The number of a face, what it shows, and how sure that is.
  tag(track) {
    const record = this.answers.get(track);
    if (!record || this.newestS - record.end_s > STALE_S) return [`${track}`];
    return [`${track}`, record.label, percent(best(record)[1])].concat(this.speaks(record) ? ["speaks"] : []);
  }

  // Whether it is the one of several faces that the sound belongs to.
  speaks(record) {
    const heard = each => each.modalities.includes("audio") && each.track_id !== null && this.newestS - each.end_s < STALE_S;
    return record.speaking != null && heard(record) && [...this.answers.values()].filter(heard).length === 1;
  }

  drawBox(paper, found, scale, unit) {
    const [x0, y0, x1, y1] = found.box.map(value => value * scale), words = this.tag(found.track_id);
    const record = words.length > 1 && this.answers.get(found.track_id);
    const stroke = record && record.label !== "uncertain" ? lightColour(record.label) : "#ffffff";
    for (const [style, width] of [["rgba(0, 0, 0, .6)", unit / 3], [stroke, unit / 6]]) {
      paper.strokeStyle = style;
      paper.lineWidth = width;
      paper.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    paper.font = `600 ${unit}px system-ui, sans-serif`;
    const text = words.join("  "), wide = paper.measureText(text).width + unit, high = 1.6 * unit;
    const left = Math.max(0, Math.min(x0 - unit / 6, paper.canvas.width - wide));
    const top = y0 - high >= 0 ? y0 - high : Math.min(y1, paper.canvas.height - high);
    paper.fillStyle = "rgba(10, 14, 18, .82)";
    paper.fillRect(left, top, wide, high);
    paper.fillStyle = stroke;
    paper.fillRect(left, top, unit / 4, high);
    paper.fillStyle = "#ffffff";
    paper.textBaseline = "middle";
    paper.fillText(text, left + 0.6 * unit, top + high / 2);
  }

  answer(record) {
    this.answers.set(record.track_id, record);
    this.newestS = Math.max(this.newestS, record.end_s);
    this.firstS = Math.min(this.firstS, record.end_s);
    this.heard = record;
    for (const [track, each] of this.answers) if (this.newestS - each.end_s > GONE_S) this.answers.delete(track);
  }

  showLevel(level) {
    if (level !== undefined) this.sound.hidden = false;
    this.fill(this.level, this.levelText, level === undefined ? 0 : 1 + level / 60, level === undefined ? "none" : `${level.toFixed(0)} dB`);
  }

  // Once a second.
  state(source, about) {
    this.newestS = Math.max(this.newestS, source.time_s);
    const lost = source.dropped_frames ? `, ${source.dropped_frames} dropped` : "";
    const size = this.frame ? `${this.frame.size[0]} × ${this.frame.size[1]}, ` : "";
    const seen = source.video ? `${size}${source.fps} fps${lost}` : "sound alone";
    write(this.facts, stateOf(source) === "running" ? seen : stateOf(source));
    this.root.classList.toggle("still", stateOf(source) !== "running");
    this.sound.hidden = !source.audio;
    const gate = about.options.voice_gate, heard = this.heard, fresh = heard && this.newestS - heard.end_s < STALE_S;
    const share = fresh && heard.voice !== null ? heard.voice : null;
    this.speech.parentNode.hidden = this.speechText.hidden = this.speech.parentNode.previousSibling.hidden = gate === null;
    this.gate.style.left = percent(gate || 0).replace(" ", "");
    this.speech.parentNode.title = `Below ${percent(gate || 0)} the sound counts as no voice`;
    this.fill(this.speech, this.speechText, share || 0, share === null ? "–" : `${percent(share)}${share < gate ? ", shut" : ""}`);
  }
}

// What a source does, in words. Counters alone would say "running" of a camera that delivers nothing.
function stateOf(source) {
  if (source.state !== "running") return source.error || source.state;
  const ageS = source.video ? source.frame_age_s : source.sound_age_s;
  if (ageS === undefined) return "running"; // a file
  if (ageS === null) return "waiting";
  return ageS > STALE_S ? `nothing for ${clock(ageS)}` : "running";
}

// On pictures, which may be dark or light, boxes have the colours of the dark theme.
const ON_PICTURE = ["#e9d997", "#89b3e6", "#8a8e92", "#d74e42", "#e69122", "#5fedda", "#b450ec", "#f5a3c7"];
const lightColour = label => ON_PICTURE[Number(styleOf(label).colour.slice(3))];
