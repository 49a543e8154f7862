"use strict";
// Sessions and marks: what the user asks for, and what is there.
const KEYS = [..."123456789"];
const names = (() => { try { return JSON.parse(localStorage.getItem("keys")) || {}; } catch (error) { return {}; } })();

function setUpSession(tell) {
  const mark = (text, key) => tell({ type: "mark", text, key });
  find("session-form").onsubmit = event => {
    event.preventDefault();
    tell({
      type: "start", name: find("session-name").value, video: find("session-video").checked,
      blur_faces: find("session-blur").checked, sound: find("session-sound").checked,
    });
  };
  find("session-stop").onclick = () => tell({ type: "stop" });
  find("mark-form").onsubmit = event => {
    event.preventDefault();
    mark(find("mark-text").value, null);
    find("mark-text").value = "";
  };
  for (const key of KEYS) {
    const button = element("button", "", find("keys"));
    button.type = "button";
    element("span", key, button);
    const name = element("small", names[key] || "", button);
    button.onclick = () => mark(names[key] || "", key);
    const label = element("label", key, find("key-names")), input = element("input", "", label);
    input.maxLength = 60;
    input.value = names[key] || "";
    input.oninput = () => {
      name.textContent = names[key] = input.value;
      try { localStorage.setItem("keys", JSON.stringify(names)); } catch (error) { /* for this visit only */ }
    };
  }
  addEventListener("keydown", event => {
    const typing = event.target.closest("input:not([type=checkbox]), select, textarea");
    if (typing || event.repeat || event.ctrlKey || event.altKey || event.metaKey || !find("keys-on").checked) return;
    if (KEYS.includes(event.key)) mark(names[event.key] || "", event.key);
  });
}

function showSession(session) {
  find("session-form").hidden = Boolean(session);
  find("session-running").hidden = find("recording").hidden = !session;
  for (const button of document.querySelectorAll("#keys button, #mark-form button")) button.disabled = !session;
  if (!session) return;
  find("session-stop").hidden = session.given;
  write(find("recording"), `Recording ${clock(session.seconds)}`);
  write(find("session-now"), session.name || session.id);
  write(find("session-facts"), `${clock(session.seconds)}, ${counted(session.records, "record")}, ${counted(session.marks, "mark")}, ${bytes(session.bytes)}`);
}

function showMarks(all) {
  marks = all;
  find("marks").replaceChildren(...all.slice().reverse().map(mark => {
    const item = element("li");
    element("time", clock(mark.run_s), item);
    element("span", [mark.key && `[${mark.key}]`, mark.text].filter(Boolean).join(" ") || "mark", item);
    return item;
  }));
}

function showSessions(all) {
  find("no-sessions").hidden = all.length > 0;
  find("sessions").replaceChildren(...all.map(session => {
    const item = element("li"), size = session.files.reduce((sum, file) => sum + file.bytes, 0);
    element("strong", session.name || session.id, item);
    const facts = [new Date(session.started).toLocaleString(), session.run_s != null && clock(session.run_s), bytes(size)];
    element("div", facts.filter(Boolean).join(" · "), item, "soft");
    const links = element("div", "", item, "row");
    const link = (text, path) => {
      const made = element("a", text, links);
      made.href = `/sessions/${encodeURIComponent(session.id)}${path}`;
      made.setAttribute("download", "");
    };
    link("all as zip", "");
    for (const file of session.files) link(file.name, `/${encodeURIComponent(file.name)}`);
    return item;
  }));
}
