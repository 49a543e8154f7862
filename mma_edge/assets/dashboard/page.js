"use strict";
const RECONNECT_MS = [500, 1000, 2000, 4000, 8000], HIDDEN_MS = 1000;
const views = new Map(); // source -> SourceView
let about = null, run = null, socket = null, attempts = 0, over = false, spoken = 0, spokenText = "";
const reader = new TextDecoder();

function say(text, kind) {
  write(find("state"), text);
  find("state").className = `pill ${kind}`;
}

function tell(message) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  else find("said").textContent = "Not connected.";
}

function view(source) {
  if (!views.has(source)) views.set(source, new SourceView(source));
  find("sources").className = views.size > 1 ? "several" : "";
  return views.get(source);
}

async function connect() {
  if (await logIn() === "refused") return say("Open the newest link that mma-edge printed", "bad");
  const mine = socket = socketAt("/view");
  mine.binaryType = "arraybuffer";
  let work = Promise.resolve();
  mine.onopen = () => { attempts = 0; say("Waiting for the sources", ""); };
  mine.onmessage = event => {
    if (typeof event.data === "string") find("said").textContent = JSON.parse(event.data).text;
    else work = work.then(() => mine === socket && take(event.data, mine));
  };
  mine.onclose = event => {
    if (mine !== socket || over) return;
    say(attempts > 1 ? "mma-edge is not there, or 8 pages are open; trying again" : "Connection lost; trying again", "bad");
    setTimeout(connect, RECONNECT_MS[Math.min(attempts++, RECONNECT_MS.length - 1)]);
  };
}

// A message: see mma_edge.dashboard.board.HEADER.
async function take(data, mine) {
  const head = new DataView(data), number = head.getUint32(8, true), length = head.getUint32(12, true);
  const news = JSON.parse(reader.decode(new Uint8Array(data, 16, length)));
  let at = 16 + length;
  if (news.about) begin(news.about);
  for (const record of news.answers || []) answer(record);
  for (const frame of news.frames || []) {
    if (!document.hidden) await view(frame.source).show(frame, new Uint8Array(data, at, frame.bytes)).catch(() => {});
    at += frame.bytes;
  }
  if (news.levels && about) for (const [source, each] of views) each.showLevel(news.levels[source]);
  if (news.run && about) showRun(news.run);
  if (news.marks) showMarks(news.marks);
  if (news.session !== undefined) showSession(news.session);
  if (news.sessions) showSessions(news.sessions);
  if (news.notices) showNotices(news.notices);
  if (about && (news.answers || news.run)) showCards(views, about, Number(find("span").value));
  if (news.ended) { over = true; say("The run has ended", ""); return mine.close(); }
  const ack = () => mine.readyState === WebSocket.OPEN && mine.send(JSON.stringify({ type: "ack", number }));
  if (document.hidden) setTimeout(ack, HIDDEN_MS); // nobody looks
  else ack();
}

function begin(facts) {
  about = facts;
  // Of a connection before this one, perhaps to another run; the server sends all that it keeps.
  for (const all of [cards, views]) { all.forEach(each => each.end()); all.clear(); }
  learn(about.labels);
  const model = `${about.model} ${about.precision}, ${about.details || about.backend}`;
  find("model").textContent = about.neutral ? `${model}, ${about.neutral}` : model;
  find("camera").hidden = !about.camera;
}

function answer(record) {
  const key = `${record.source}\n${record.track_id}`;
  if (!about) return;
  view(record.source).answer(record);
  if (!cards.has(key)) cards.set(key, new Card(record.source, record, about.labels));
  cards.get(key).add(record);
  speak();
}

// For screen readers: what the answers say, when it changes, and not too often.
function speak() {
  const now = performance.now();
  const said = [...cards.values()].filter(card => !card.root.classList.contains("gone")).map(card => `${face(card.record)} ${card.record.label}`).join(", ");
  if (said === spokenText || now - spoken < 3000) return;
  [spoken, spokenText] = [now, said];
  write(find("spoken"), said);
}

function showRun(state) {
  run = state;
  for (const [name, source] of Object.entries(run.sources)) view(name).state(source, about);
  const states = Object.values(run.sources);
  const well = states.some(source => stateOf(source) === "running");
  if (states.some(source => source.state === "running")) say(`${well ? "Running" : "Waiting"} ${clock(run.run_s)}`, well ? "good" : "");
  else say("No source runs", "bad");
  const spread = values => values ? `${Math.round(values.p50)} / ${Math.round(values.p95)} ms` : "–";
  find("numbers").title = find("table").title = "Ages: median / 95th percentile of the last minute";
  const sum = name => states.reduce((all, source) => all + (source[name] || 0), 0);
  const numbers = {
    "Age of answers": spread(run.age_ms), "Age of pictures": spread(run.page.picture_ms), "Answers": run.answers,
    "Dropped frames": sum("dropped_frames"), "Lost sound": `${sum("dropped_sound_s").toFixed(1)} s`,
    "Engine": about.backend, "Precision": about.precision, "Pages open": `${run.page.viewers} of 8`,
  };
  if (run.engine) numbers["Engine busy"] = percent(run.engine.busy);
  if (states.some(source => source.replaced)) numbers["Answers left out"] = sum("replaced");
  const list = find("numbers"), pairs = Object.entries(numbers);
  if (list.children.length !== pairs.length) {
    list.replaceChildren(...pairs.map(([name]) => { const pair = element("div"); element("dt", name, pair); element("dd", "", pair); return pair; }));
  }
  pairs.forEach(([name, value], n) => { write(list.children[n].firstChild, name); write(list.children[n].lastChild, String(value)); });
  showTable(spread);
}

function showTable(spread) {
  const table = find("table"), columns = ["Source", "State", "Time", "Frames", "Dropped", "fps", "Faces", "Age", "Reopened"];
  const rows = Object.entries(run.sources).map(([name, source]) => [
    name, stateOf(source), clock(source.time_s), source.frames, source.dropped_frames,
    stateOf(source) === "running" ? source.fps : 0,
    source.faces, spread(source.age_ms), source.reopened,
  ]);
  if (table.rows.length !== rows.length + 1) {
    table.replaceChildren();
    const head = element("tr", "", element("thead", "", table)), body = element("tbody", "", table);
    for (const column of columns) element("th", column, head).scope = "col";
    for (const row of rows) { const line = element("tr", "", body); row.forEach((value, n) => { element(n ? "td" : "th", "", line); }); line.cells[0].scope = "row"; }
  }
  rows.forEach((row, y) => row.forEach((value, x) => write(table.rows[y + 1].cells[x], String(value))));
}

function showNotices(all) {
  find("no-notices").hidden = all.length > 0;
  find("notices").replaceChildren(...all.slice().reverse().map(notice => {
    const item = element("li");
    element("time", new Date(notice.time).toLocaleTimeString(), item);
    element("span", notice.text, item);
    return item;
  }));
}

function setUpCamera() {
  const status = find("camera-status"), own = find("own");
  const camera = new Camera(own, {
    say: (text, kind = "") => { write(status, text); status.style.color = kind === "bad" ? "var(--bad)" : ""; },
    changed: wanted => {
      const focused = document.activeElement;
      find("camera-start").hidden = wanted;
      find("camera-stop").hidden = own.hidden = !wanted;
      if (focused && focused.hidden) find(wanted ? "camera-stop" : "camera-start").focus();
    },
    faces: () => {},
  });
  find("camera-start").onclick = () => camera.start();
  find("camera-stop").onclick = () => camera.stop();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  cards.forEach(card => card.remake());
  if (about) showCards(views, about, Number(find("span").value));
});
find("span").onchange = () => about && showCards(views, about, Number(find("span").value));
setUpSession(tell);
setUpCamera();
showSession(null);
connect();
