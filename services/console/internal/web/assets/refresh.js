// Asks the JSON endpoint every second for what came after the last finding. If there is something, it takes the rows
// from the page as the server renders it, so that escaping is done in one place, and adds those it does not have.
"use strict";

const state = document.getElementById("state");
const findings = document.getElementById("findings");

function say(text, mood) {
  if (state.textContent !== text) state.textContent = text;
  state.className = mood;
}

function adopt(page) {
  const fresh = page.getElementById("findings");
  const body = findings.querySelector("tbody");
  if (!body) {
    findings.replaceChildren(...fresh.childNodes);
  } else {
    const have = new Map([...body.rows].map((row) => [row.dataset.key, row]));
    const rows = [...fresh.querySelectorAll("tbody tr")].map((row) => {
      const old = have.get(row.dataset.key);
      if (!old) row.className = "new";
      return old || row; // the old row keeps its details open
    });
    body.replaceChildren(...rows);
  }
  findings.dataset.cursor = fresh.dataset.cursor;
}

async function refresh() {
  const after = encodeURIComponent(findings.dataset.cursor);
  const answer = await fetch("/api/v1/findings?limit=1&after=" + after, { credentials: "same-origin" });
  if (answer.status === 401) {
    location.assign("/login");
    return;
  }
  if (!answer.ok) throw new Error(answer.statusText);
  if ((await answer.json()).findings.length > 0) {
    const page = await fetch("/", { credentials: "same-origin" });
    if (page.ok) adopt(new DOMParser().parseFromString(await page.text(), "text/html"));
  }
  say("Live", "live");
}

async function loop() {
  try {
    if (!document.hidden) await refresh();
  } catch {
    say("The console does not answer", "lost");
  }
  setTimeout(loop, 1000);
}

loop();
