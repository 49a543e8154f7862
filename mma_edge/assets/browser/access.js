"use strict";

// Shows the server the token of the link, which is changed for a cookie: "in", "refused", or "away" where there is no
// server. What follows the # is never sent by itself, so no log has it.
async function logIn() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token") || "";
  try {
    const answer = await fetch("/login", { method: "POST", body: token });
    if (answer.status === 401) return "refused";
    if (answer.ok && token) history.replaceState(null, "", location.pathname + location.search);
    return "in";
  } catch (error) { return "away"; }
}

const socketAt = path => new WebSocket(location.origin.replace(/^http/, "ws") + path);
