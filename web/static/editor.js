// Makes the text field of a pipeline an editor: line numbers, colours, and what
// validation finds, in place. Without it the field and the button still work.

const form = document.querySelector("[data-editor]");
const box = form.querySelector("[data-editor-box]");
const text = box.querySelector("textarea");
const gutter = document.createElement("div");
const paint = document.createElement("pre");
gutter.className = "gutter";
paint.className = "paint";
gutter.setAttribute("aria-hidden", "true");
paint.setAttribute("aria-hidden", "true");
box.prepend(gutter);
box.append(paint);
box.classList.add("on");

let marks = new Map(); // line -> {severity, text}
const rank = { error: 3, warning: 2, info: 1 };

// colour splits a line the way definition.go does: key, template, note.
function colour(line, into) {
  const add = (s, name) => {
    if (!s) return;
    if (!name) { into.append(s); return; }
    const span = document.createElement("span");
    span.className = name;
    span.textContent = s;
    into.append(span);
  };
  let [, indent, rest] = line.match(/^([ -]*)(.*)$/s);
  add(indent);
  const key = rest.startsWith("#") ? null : rest.match(/^([^\s{["'#:][^\s{["'#]*?)(:)(?= |$)/);
  if (key) {
    add(key[1], "y-key");
    add(":", "y-mark");
    rest = rest.slice(key[0].length);
  }
  let blank = true;
  while (rest) {
    let m;
    if ((m = rest.match(/^(\{\{.*?(\}\}|$)|\{%.*?(%\}|$)|<\/?AUTO.*?(>|$))/))) { add(m[0], "y-expr"); blank = false; }
    else if (rest[0] === "#" && blank) { add(rest, "y-note"); return; }
    else { m = rest.match(/^.[^{#<]*/s); add(m[0]); blank = /\s$/.test(m[0]); }
    rest = rest.slice(m[0].length);
  }
}

function draw() {
  const lines = text.value.split("\n");
  paint.textContent = "";
  const big = lines.length > 2000;
  lines.forEach((l, i) => {
    const m = marks.get(i + 1);
    let into = paint;
    if (m) {
      into = document.createElement("span");
      into.className = "flaw " + m.severity;
      paint.append(into);
    }
    if (big) into.append(l); else colour(l, into);
    paint.append("\n");
  });
  if (gutter.childElementCount !== lines.length || gutter.dataset.stale) {
    gutter.textContent = "";
    delete gutter.dataset.stale;
    lines.forEach((_, i) => {
      const d = document.createElement("div");
      const m = marks.get(i + 1);
      d.textContent = i + 1;
      if (m) { d.className = m.severity; d.title = m.text; }
      gutter.append(d);
    });
  }
  scroll();
}

function scroll() {
  paint.scrollTop = gutter.scrollTop = text.scrollTop;
  paint.scrollLeft = text.scrollLeft;
}

function mark(list) {
  marks = new Map();
  for (const m of list || []) {
    const had = marks.get(m.line);
    if (!had || rank[m.severity] > rank[had.severity]) marks.set(m.line, m);
  }
  gutter.dataset.stale = "1";
  draw();
}

// offset finds a line and column, both from 1, columns in code points.
function offset(line, column) {
  const lines = text.value.split("\n");
  let at = 0;
  for (let i = 0; i < line - 1 && i < lines.length; i++) at += lines[i].length + 1;
  const here = [...(lines[line - 1] || "")];
  return at + here.slice(0, Math.max(0, column - 1)).join("").length;
}

document.addEventListener("click", (e) => {
  const a = e.target.closest("[data-goto]");
  if (!a) return;
  e.preventDefault();
  const [line, column, endLine, endColumn] = a.dataset.goto.split(":").map(Number);
  const from = offset(line, column);
  const to = endLine ? offset(endLine, endColumn) : from;
  text.focus();
  text.setSelectionRange(from, Math.max(from, to));
  text.scrollTop = Math.max(0, (line - 5) * 20);
  scroll();
});

let timer = 0, asked = 0;
function check(wait) {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const mine = ++asked;
    try {
      const answer = await fetch(form.dataset.editor, { method: "POST", body: new URLSearchParams(new FormData(form)) });
      if (!answer.ok || mine !== asked) return;
      const frame = await answer.json();
      if (mine !== asked) return;
      document.dispatchEvent(new CustomEvent("frame", { detail: frame }));
      mark(frame.marks);
    } catch (e) { /* the next change asks again, and Validate always works */ }
  }, wait);
}

text.addEventListener("input", () => { draw(); check(350); });
text.addEventListener("scroll", scroll, { passive: true });
text.addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.metaKey && !e.ctrlKey) { // the next line begins below this one
    const before = text.value.slice(0, text.selectionStart);
    const line = before.slice(before.lastIndexOf("\n") + 1);
    const indent = line.match(/^ */)[0] + (/:\s*$/.test(line) ? "  " : "");
    if (indent) {
      e.preventDefault();
      document.execCommand("insertText", false, "\n" + indent);
    }
  }
  if (e.key === "Enter" && (e.metaKey || e.ctrlKey)) form.requestSubmit(form.querySelector("[value=run]"));
});
draw();
check(0);
