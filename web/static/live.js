// Keeps a page fresh: a WebSocket for a run, a look now and then for lists.
// Everything arrives as frames {seq, patches: [{id, html}]} of elements that
// the server has drawn; this file only puts them in their places.

const announce = document.getElementById("announce");
const lost = document.getElementById("lost");

// ---- Putting elements in their places

// parse turns HTML into an element; parts of drawings need their own namespace.
function parse(html, like) {
  const t = document.createElement("template");
  if (like instanceof SVGElement && like.ownerSVGElement) {
    t.innerHTML = "<svg>" + html + "</svg>";
    return t.content.firstElementChild.firstElementChild;
  }
  t.innerHTML = html;
  return t.content.firstElementChild;
}

// What the reader has done to an element outlives its new state.
const kept = new Set(["open", "data-kept"]);

// morph makes the element what the new one is, and touches nothing that is the
// same already: focus, selection, scroll and opened details stay.
function morph(old, now) {
  if (old.isEqualNode(now)) return;
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName || (old.id || now.id) && old.id !== now.id) {
    old.replaceWith(now);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== now.nodeValue) old.nodeValue = now.nodeValue;
    return;
  }
  if (old.dataset.signature !== undefined && old.dataset.signature === now.dataset.signature) return;
  if (old.dataset.replace !== undefined) { // the script has its hands in it
    old.replaceWith(now);
    return;
  }
  for (const a of [...old.attributes]) {
    if (!now.hasAttribute(a.name) && !(kept.has(a.name) && old.nodeName === "DETAILS")) old.removeAttribute(a.name);
  }
  for (const a of now.attributes) {
    if (old.getAttribute(a.name) !== a.value && !(kept.has(a.name) && old.nodeName === "DETAILS")) old.setAttribute(a.name, a.value);
  }
  const ids = new Map();
  for (const c of old.children) if (c.id) ids.set(c.id, c);
  let at = old.firstChild;
  for (const n of [...now.childNodes]) {
    let match = n.id ? ids.get(n.id) : at;
    if (!n.id && at && at.id) match = null; // it belongs to another place
    if (!match || match.nodeName !== n.nodeName) {
      old.insertBefore(n, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    morph(match, n);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// append adds lines to a log and keeps its end in sight if it was.
function append(box, patch) {
  const t = document.createElement("template");
  t.innerHTML = patch.html;
  const there = new Set();
  for (const row of [...box.children].slice(-200)) there.add(row.dataset.line);
  for (const row of [...t.content.children]) {
    if (!there.has(row.dataset.line)) box.append(row);
  }
  for (const none of box.querySelectorAll(":scope > .none")) none.remove();
  while (patch.keep && box.children.length > patch.keep) box.firstElementChild.remove();
}

function atEnd(box) { return box.scrollHeight - box.scrollTop - box.clientHeight < 24; }

function following(box) {
  const check = box.parentElement.querySelector("[data-follow]");
  return check ? check.checked : atEnd(box);
}

// apply puts a frame on the page.
function apply(frame) {
  const focused = document.activeElement && document.activeElement.id;
  for (const p of frame.patches || []) {
    const old = document.getElementById(p.id);
    if (!old) continue;
    const log = old.getAttribute("role") === "log";
    const follow = log && following(old);
    if (p.append) append(old, p);
    else {
      const now = parse(p.html, old);
      if (now) morph(old, now);
    }
    if (follow) old.scrollTop = old.scrollHeight;
  }
  if (frame.say) announce.textContent = frame.say;
  if (focused && document.activeElement === document.body) {
    const again = document.getElementById(focused);
    if (again) again.focus({ preventScroll: true });
  }
  tick();
  document.dispatchEvent(new CustomEvent("patched"));
}
document.addEventListener("frame", (e) => apply(e.detail));

// ---- A run: frames over a WebSocket

const run = document.querySelector("[data-live]");
let seq = run ? Number(run.dataset.seq) : 0;
let socket = null;
let tries = 0;
let timer = 0;
let watchdog = 0;
let over = false;

function say(text) {
  lost.textContent = text;
  lost.hidden = !text;
}

function connect() {
  clearTimeout(timer);
  const url = new URL(run.dataset.live, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("after", seq);
  const ws = new WebSocket(url);
  socket = ws;
  const alive = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => ws.close(), 40000); // the server speaks every 15 s
  };
  alive();
  ws.onmessage = (e) => {
    if (ws !== socket) return;
    alive();
    tries = 0;
    say("");
    const frame = JSON.parse(e.data);
    if (frame.seq < seq) return; // never backwards
    seq = frame.seq;
    run.dataset.seq = seq;
    apply(frame);
    if (frame.done) over = true;
  };
  ws.onclose = () => {
    clearTimeout(watchdog);
    if (ws !== socket || over) return;
    if (tries > 0 || navigator.onLine === false || document.visibilityState === "visible") {
      say("Connection lost \u2013 reconnecting");
    }
    const wait = Math.min(10000, 250 * 2 ** tries++) * (0.75 + Math.random() / 2);
    timer = setTimeout(connect, wait);
  };
}

function reconnect() {
  if (!run || over) return;
  const old = socket;
  socket = null;
  if (old) old.close();
  connect();
}

if (run) {
  connect();
  addEventListener("online", () => { if (!socket || socket.readyState > 1) { tries = 0; reconnect(); } });
  document.addEventListener("visibilitychange", () => { // approvals also look for runs that nobody has told of
    if (document.visibilityState === "visible" && (!socket || socket.readyState > 1 || run.dataset.look !== undefined)) { tries = 0; reconnect(); }
  });
  addEventListener("pagehide", () => { over = true; if (socket) socket.close(); });
  addEventListener("pageshow", (e) => { if (e.persisted) { over = false; reconnect(); } });
}

// ---- Lists: look again now and then, only while somebody can see it

let looked = "";
async function look() {
  const box = document.querySelector("[data-poll]");
  if (!box) return;
  if (document.visibilityState === "visible") {
    try {
      const url = new URL(location.href);
      url.searchParams.set("frame", "1");
      const answer = await fetch(url, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(answer.status);
      const text = await answer.text();
      if (text !== looked) apply(JSON.parse(text));
      looked = text;
      say("");
    } catch (e) {
      say("Connection lost \u2013 trying again");
    }
  }
  setTimeout(look, Number(box.dataset.poll) || 15000);
}
{
  const box = document.querySelector("[data-poll]");
  if (box) setTimeout(look, Number(box.dataset.poll));
}

// ---- On a narrow screen the entry that is lit is scrolled to

for (const bar of document.querySelectorAll(".top nav, .tabs, .chips")) {
  const lit = bar.querySelector("[aria-current]");
  if (lit) bar.scrollLeft += Math.max(0, lit.getBoundingClientRect().right + 40 - bar.getBoundingClientRect().right);
}

// ---- The drawer of a step opens without leaving the page

const main = document.querySelector("[data-run]");
let opener = null;

async function drawer(href, push) {
  const url = new URL(href, location.href);
  const ask = new URL(url);
  ask.hash = "";
  ask.searchParams.set("frame", "1");
  const answer = await fetch(ask);
  if (!answer.ok) { location.href = href; return; }
  const frame = await answer.json();
  if (push) history.pushState({ drawer: true }, "", url);
  apply(frame);
  const step = url.searchParams.get("step") || "";
  for (const row of document.querySelectorAll("tr.open")) row.classList.remove("open");
  if (step) document.getElementById("step-" + step)?.classList.add("open");
  for (const a of document.querySelectorAll(".tabs a")) carry(a, step);
  if (main.dataset.live) {
    const live = new URL(main.dataset.live, location.href);
    if (step) live.searchParams.set("step", step); else live.searchParams.delete("step");
    main.dataset.live = live.pathname + live.search;
    reconnect();
  }
  for (const log of document.querySelectorAll("#drawer-log")) log.scrollTop = log.scrollHeight;
  if (!step) opener?.isConnected && opener.focus();
  else document.getElementById("drawer-title")?.focus({ preventScroll: true });
}

// carry makes a tab keep the open step.
function carry(a, step) {
  const url = new URL(a.href);
  if (step) url.searchParams.set("step", step); else url.searchParams.delete("step");
  a.href = url.pathname + url.search;
}

document.addEventListener("click", (e) => {
  const a = e.target.closest("a[data-drawer]");
  if (!a || !main || e.button || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
  const href = a.getAttribute("href");
  const url = new URL(href, location.href);
  if (url.pathname !== location.pathname) return;
  if ((url.searchParams.get("tab") || "graph") !== (new URL(location.href).searchParams.get("tab") || "graph")) return;
  e.preventDefault();
  if (url.searchParams.get("step")) opener = a;
  drawer(href, true);
});
addEventListener("popstate", () => { if (main) drawer(location.href, false); });

// ---- Times

const units = (ms) => {
  const s = ms / 1000, two = (n) => String(Math.floor(n)).padStart(2, "0");
  if (ms < 0) return "0 ms";
  if (s < 1) return Math.floor(ms) + " ms";
  if (s < 10) return (Math.floor(s * 10) / 10).toFixed(1) + " s";
  if (s < 60) return Math.floor(s) + " s";
  if (s < 3600) return Math.floor(s / 60) + " m " + two(s % 60) + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + two(s / 60 % 60) + " m";
  return Math.floor(s / 86400) + " d " + two(s / 3600 % 24) + " h";
};
const since = (ms) => {
  const s = ms / 1000;
  if (s < 5) return "just now";
  if (s < 60) return Math.floor(s) + " s ago";
  if (s < 3600) return Math.floor(s / 60) + " min ago";
  if (s < 86400) return Math.floor(s / 3600) + " h ago";
  if (s < 2592000) return Math.floor(s / 86400) + " d ago";
  return "";
};
const ahead = (ms) => {
  const s = ms / 1000;
  if (s <= 0) return "now";
  if (s < 60) return "in " + Math.floor(s) + " s";
  if (s < 3600) return "in " + Math.floor(s / 60) + " min";
  if (s < 172800) return "in " + Math.floor(s / 3600) + " h";
  if (s < 5184000) return "in " + Math.floor(s / 86400) + " d";
  return "";
};
const write = (el, text) => { if (text && el.textContent !== text) el.textContent = text; };

function tick() {
  const now = Date.now();
  for (const el of document.querySelectorAll("[data-since]")) write(el, units(now - Number(el.dataset.since)));
  for (const el of document.querySelectorAll("time[data-ago]")) write(el, since(now - Date.parse(el.dateTime)));
  for (const el of document.querySelectorAll("time[data-until]")) write(el, ahead(Date.parse(el.dateTime) - now));
}
setInterval(() => { if (document.visibilityState === "visible") tick(); }, 1000);

// ---- Copying, theme, logs

document.addEventListener("click", async (e) => {
  const b = e.target.closest("[data-copy]");
  if (!b) return;
  await navigator.clipboard.writeText(b.dataset.copy);
  b.classList.add("done");
  announce.textContent = "Copied.";
  setTimeout(() => b.classList.remove("done"), 1200);
});

const toggle = document.querySelector("[data-theme-toggle]");
if (toggle) {
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch (err) { /* it lasts for this page */ }
  });
}

for (const box of document.querySelectorAll("[data-logs]")) {
  const log = box.querySelector("[role=log]");
  const label = box.querySelector("[data-follow-label]");
  log.scrollTop = log.scrollHeight;
  if (!label) continue;
  label.hidden = false;
  const check = label.querySelector("input");
  check.addEventListener("change", () => { if (check.checked) log.scrollTop = log.scrollHeight; });
  log.addEventListener("wheel", () => { requestAnimationFrame(() => { check.checked = atEnd(log); }); }, { passive: true });
}
for (const log of document.querySelectorAll("#drawer-log")) log.scrollTop = log.scrollHeight;

// ---- Keys

document.addEventListener("keydown", (e) => {
  const typing = e.target.closest("input, textarea, select, [contenteditable]");
  if (e.key === "Escape") {
    if (typing) { typing.blur(); return; }
    const close = document.querySelector("#drawer:not([hidden]) a[data-drawer]");
    if (close) close.click();
    return;
  }
  if (typing || e.metaKey || e.ctrlKey || e.altKey) return;
  if (e.key === "/") {
    const find = document.querySelector("main [data-find]") || document.querySelector("[data-find]");
    if (find && find.offsetParent) { e.preventDefault(); find.focus(); find.select(); }
  } else if (e.key === "j" || e.key === "k") {
    const rows = [...document.querySelectorAll("[data-list] tbody tr a:first-of-type, tbody[data-list] a, ul[data-list] a.card")]
      .filter((a, i, all) => a.closest("tr, li") !== all[i - 1]?.closest("tr, li"));
    if (!rows.length) return;
    const at = rows.findIndex((a) => a.closest("tr, li").contains(document.activeElement));
    const to = at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + (e.key === "j" ? 1 : -1)));
    rows[to].focus();
    rows[to].scrollIntoView({ block: "nearest" });
  }
});

// ---- The graph: pan, zoom, find

function graph(box) {
  const pane = box.querySelector(".graph-pane"), svg = box.querySelector("svg.plan"), tools = box.querySelector("[data-graph-tools]");
  if (!svg || box.classList.contains("free")) return;
  const whole = svg.viewBox.baseVal, width = whole.width, height = whole.height;
  box.classList.add("free");
  svg.removeAttribute("width");
  svg.removeAttribute("height");
  tools.hidden = false;
  let x = 0, y = 0, scale = 1; // the drawing's point at the pane's corner; pixels per unit
  const show = () => {
    svg.setAttribute("viewBox", [x, y, Math.max(1, pane.clientWidth / scale), Math.max(1, pane.clientHeight / scale)].map((n) => Math.round(n * 100) / 100).join(" "));
  };
  const center = (cx, cy) => { x = cx - pane.clientWidth / scale / 2; y = cy - pane.clientHeight / scale / 2; show(); };
  const fit = () => {
    scale = Math.min(1.15, (pane.clientWidth - 32) / width, (pane.clientHeight - 32) / height);
    center(width / 2, height / 2);
  };
  const start = () => { // readable at once: the beginning of a long graph rather than all of it, tiny
    fit();
    if (scale < 0.8) {
      scale = Math.min(1, Math.max(0.5, (pane.clientWidth - 32) / width));
      center(width / 2, height / 2);
      y = -16;
    }
    y = Math.max(y, -24); // a small graph hangs from the top
    show();
  };
  const zoom = (by, px, py) => {
    const next = Math.min(3, Math.max(0.05, scale * by));
    x += px / scale - px / next;
    y += py / scale - py / next;
    scale = next;
    show();
  };
  const go = (node) => {
    const b = node.getBBox();
    if (scale < 0.6) scale = 0.9;
    center(b.x + b.width / 2, b.y + b.height / 2);
  };
  start();
  addEventListener("resize", show);
  pane.addEventListener("wheel", (e) => {
    if (!e.ctrlKey && !e.metaKey) { // two fingers move, with Ctrl they zoom
      const before = y;
      x += (e.shiftKey ? e.deltaY : e.deltaX) / scale;
      y += (e.shiftKey ? 0 : e.deltaY) / scale;
      y = Math.max(Math.min(y, Math.max(0, height - pane.clientHeight / scale) + 40), Math.min(0, height - pane.clientHeight / scale) - 40);
      x = Math.max(Math.min(x, width - 40), 40 - pane.clientWidth / scale);
      show();
      if (y !== before || e.deltaX) e.preventDefault(); // at its end the page scrolls on
      return;
    }
    e.preventDefault();
    const r = pane.getBoundingClientRect();
    zoom(Math.exp(-e.deltaY / 300), e.clientX - r.left, e.clientY - r.top);
  }, { passive: false });
  let held = null, moved = false;
  pane.addEventListener("pointerdown", (e) => {
    if (e.button) return;
    held = { px: e.clientX, py: e.clientY, x, y };
    moved = false;
  });
  pane.addEventListener("pointermove", (e) => {
    if (!held) return;
    const dx = e.clientX - held.px, dy = e.clientY - held.py;
    if (!moved && Math.hypot(dx, dy) < 4) return;
    if (!moved) { moved = true; pane.setPointerCapture(e.pointerId); pane.classList.add("held"); }
    x = held.x - dx / scale;
    y = held.y - dy / scale;
    show();
  });
  const drop = () => { held = null; pane.classList.remove("held"); };
  pane.addEventListener("pointerup", drop);
  pane.addEventListener("pointercancel", drop);
  pane.addEventListener("click", (e) => { if (moved) { e.preventDefault(); e.stopPropagation(); moved = false; } }, true);
  pane.addEventListener("dragstart", (e) => e.preventDefault());
  pane.addEventListener("keydown", (e) => {
    if (e.target !== pane) return;
    const step = 60 / scale;
    const way = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[e.key];
    if (way) { x += way[0]; y += way[1]; show(); e.preventDefault(); }
    if (e.key === "+" || e.key === "=") zoom(1.25, pane.clientWidth / 2, pane.clientHeight / 2);
    if (e.key === "-") zoom(0.8, pane.clientWidth / 2, pane.clientHeight / 2);
    if (e.key === "0") fit();
  });
  pane.addEventListener("focusin", (e) => { // whoever tabs through the steps sees them
    const node = e.target.closest(".node");
    if (!node || !e.target.matches(":focus-visible")) return;
    const n = node.getBoundingClientRect(), p = pane.getBoundingClientRect();
    if (n.left < p.left || n.right > p.right || n.top < p.top || n.bottom > p.bottom) go(node);
  });
  for (const b of tools.querySelectorAll("[data-graph-zoom]")) {
    b.addEventListener("click", () => {
      if (b.dataset.graphZoom === "fit") fit();
      else zoom(b.dataset.graphZoom === "in" ? 1.25 : 0.8, pane.clientWidth / 2, pane.clientHeight / 2);
    });
  }
  const focusers = [...tools.querySelectorAll("[data-graph-focus]")];
  const inner = (state) => {
    const all = [...svg.querySelectorAll(".node.s-" + state)];
    const leaves = all.filter((n) => !n.classList.contains("block"));
    return leaves.length ? leaves : all;
  };
  const offer = () => { for (const b of focusers) b.disabled = !svg.querySelector(".node.s-" + b.dataset.graphFocus); };
  let turn = 0;
  for (const b of focusers) {
    b.addEventListener("click", () => {
      const nodes = inner(b.dataset.graphFocus);
      if (nodes.length) go(nodes[turn++ % nodes.length]);
    });
  }
  offer();
  document.addEventListener("patched", offer);
  const find = tools.querySelector("input");
  find.addEventListener("input", () => {
    const q = find.value.trim().toLowerCase();
    svg.classList.toggle("finding-steps", q !== "");
    let hit = null;
    for (const n of svg.querySelectorAll(".node")) {
      const on = q !== "" && n.id.slice(5).toLowerCase().includes(q);
      n.classList.toggle("hit", on);
      if (on && (!hit || n.dataset.name.toLowerCase() === q)) hit = n;
    }
    if (hit) go(hit);
  });
  find.addEventListener("keydown", (e) => {
    if (e.key === "Enter") { e.preventDefault(); svg.querySelector(".node.hit a")?.focus(); }
  });
}
function graphs() { for (const box of document.querySelectorAll("[data-graph]")) graph(box); }
graphs();
document.addEventListener("patched", graphs);
tick();
