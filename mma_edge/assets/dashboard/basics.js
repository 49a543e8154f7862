"use strict";
const find = id => document.getElementById(id);
const percent = share => `${Math.round(100 * share)} %`;
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function element(name, text, parent, cls) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (cls) made.className = cls;
  if (parent) parent.append(made);
  return made;
}

// Writing the same text again would make a screen reader say it again.
function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds)), two = n => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return (hours ? `${hours}:${two(minutes)}` : `${minutes}`) + `:${two(whole % 60)}`;
}

const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

function bytes(count) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (count < 1000 || unit === "GB") return `${count < 10 && unit !== "B" ? count.toFixed(1) : Math.round(count)} ${unit}`;
    count /= 1000;
  }
}

// A class has its own colour where it is one of DFEW's, and a dash beside it: colour is never the only difference.
const PLACES = ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"];
const DASHES = [[], [], [], [], [6, 3], [6, 3], [6, 3], [2, 3]];
const styles = new Map(); // label -> {colour: CSS variable, dash}
function learn(labels) {
  const free = [...Array(8).keys()].filter(n => !labels.includes(PLACES[n]));
  let rounds = 0;
  for (const label of labels) {
    let place = PLACES.indexOf(label);
    if (place < 0) {
      if (!free.length) { rounds++; free.push(...Array(8).keys()); }
      place = free.shift();
    }
    styles.set(label, { colour: `--c${place}`, dash: rounds ? [2, 3] : DASHES[place] });
  }
}
const styleOf = label => styles.get(label) || { colour: "--c2", dash: [] };

const face = record => record.track_id === null ? "Voice" : record.track_id === 0 ? "Picture" : `Face ${record.track_id}`;

// The class that is most probable, also where the answer is "uncertain".
const best = record => Object.entries(record.probabilities).reduce((a, b) => b[1] > a[1] ? b : a);

function restsOn(record) {
  const [video, audio] = ["video", "audio"].map(kind => record.modalities.includes(kind));
  return video && audio ? "face and voice" : audio ? "voice only" : "face only";
}
