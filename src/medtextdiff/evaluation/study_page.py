"""The page a rater opens: one HTML file that needs no other and no network, worked by keys, saved as it goes."""

import json
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b2430; --soft: #5b6776; --line: #cdd4dc;
  --accent: #0b6e99; --on: #fff; }
@media (prefers-color-scheme: dark) { :root { --page: #12161b; --card: #1a2027; --ink: #e6eaef; --soft: #9aa7b5;
  --line: #3a4653; --accent: #5cb8e0; --on: #0d1318; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 20px; }
header { display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: baseline; justify-content: space-between; }
h1 { font-size: 1.25rem; margin: 0; } .soft { color: var(--soft); font-size: 0.9rem; }
.bar { height: 6px; border-radius: 3px; background: var(--line); margin: 10px 0 18px; }
.bar i { display: block; height: 100%; border-radius: 3px; background: var(--accent); width: 0; }
.work { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 24px; align-items: start; }
@media (max-width: 760px) { .work { grid-template-columns: minmax(0, 1fr); } }
.picture { background: #000; border-radius: 8px; } .picture img { width: 100%; display: block; border-radius: 8px; }
.prompt { margin: 0 0 14px; padding: 10px 14px; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
fieldset { border: 1px solid transparent; border-radius: 8px; margin: 0 0 8px; padding: 6px 10px 10px; }
fieldset.now { border-color: var(--accent); background: var(--card); } legend { padding: 0 4px; font-weight: 600; }
.row { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; }
button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 7px;
  padding: 5px 13px; cursor: pointer; } button kbd { color: var(--soft); font: inherit; font-size: 0.82rem; }
button.on { background: var(--accent); border-color: var(--accent); color: var(--on); }
button.on kbd { color: inherit; }
button:focus-visible, input:focus-visible { outline: 3px solid var(--accent); outline-offset: 1px; }
button:disabled { opacity: 0.45; cursor: default; } .main { font-weight: 600; }
nav { display: flex; gap: 10px; margin-top: 14px; flex-wrap: wrap; }
input { font: inherit; padding: 6px 10px; border: 1px solid var(--line); border-radius: 7px; background: var(--card);
  color: inherit; } .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 22px;
  max-width: 720px; margin: 24px auto; } .warn { color: #b3261e; }
@media (prefers-color-scheme: dark) { .warn { color: #ff9b92; } }
[hidden] { display: none !important; }
"""

_BODY = """
<main>
<section id="start" class="card">
  <h1>Image study</h1>
  <p>You will see <b id="total"></b> images, one at a time. About half of them are real; the others were made by
  computer programs. Please judge each image by itself.</p>
  <p class="soft">Work with the mouse or the keys shown on the buttons; Enter goes on, Backspace goes back. Answers are
  kept in this browser as you go, so you can close the page and come back. At the end you download a file and send it
  to the person who gave you this page. Nothing leaves your computer by itself.</p>
  <form class="row"><label for="rater">Your name or code</label> <input id="rater" maxlength="40" autocomplete="off">
  <button class="main" type="submit">Begin</button></form>
  <p id="startsays" class="warn" role="alert"></p>
</section>
<section id="rating" hidden>
  <header><h1>Image <span id="number"></span></h1><span class="soft" id="saved" role="status"></span></header>
  <div class="bar"><i id="done"></i></div>
  <div class="work">
    <div class="picture"><img id="image" alt="The image to judge"></div>
    <div><p class="prompt" id="promptbox"><span class="soft">Asked for:</span><br><span id="prompt"></span></p>
      <div id="questions"></div>
      <nav><button id="back" type="button">Back <kbd>Backspace</kbd></button>
      <button id="next" class="main" type="button">Next <kbd>Enter</kbd></button>
      <button id="finish" type="button">To the end</button></nav></div>
  </div>
</section>
<section id="end" class="card" hidden>
  <h1>Thank you</h1>
  <p id="endsays"></p>
  <nav><button id="csv" class="main" type="button">Download CSV</button>
  <button id="json" type="button">Download JSON</button>
  <button id="again" type="button">Go back to the images</button></nav>
  <p class="soft">Either file will do. Please send it to the person who gave you this page.</p>
</section>
</main>
"""

_SCRIPT = """
"use strict";
const sheet = JSON.parse(document.getElementById("sheet").textContent);
const questions = [
  {name: "real", text: "Is this image real?", choices: [["Real", 1, "r"], ["Synthetic", 0, "s"]]},
  {name: "confidence", text: "How sure are you?", ends: ["guessing", "certain"]},
  {name: "realism", text: "How realistic does it look?", ends: ["not at all", "fully"]},
  {name: "adherence", text: "Does it show what was asked for?", ends: ["not at all", "fully"]},
  {name: "usable", text: "Would you use it in teaching?", choices: [["Usable", 1, "y"], ["Not usable", 0, "n"]]},
].filter(q => q.name !== "adherence" || sheet.prompts);
const $ = id => document.getElementById(id);
let rater = "", at = 0, asked = 0, answers = {}, since = 0;
const place = () => "medtextdiff-study:" + sheet.id + ":" + rater;
const keep = () => {
  try { localStorage.setItem(place(), JSON.stringify({at, answers})); $("saved").textContent = "saved"; }
  catch (error) { $("saved").textContent = "this browser keeps nothing: finish without closing the page"; }
};
const own = () => answers[sheet.items[at].number] || (answers[sheet.items[at].number] = {});
const complete = number => questions.every(q => answers[number] && q.name in answers[number]);
const show = id => ["start", "rating", "end"].forEach(name => $(name).hidden = name !== id);
const choices = q => q.choices || [1, 2, 3, 4, 5].map(v => [String(v), v, String(v)]);
function answer(q, value) {
  const mine = own();
  mine[q.name] = value;
  mine.seconds = (mine.seconds || 0) + (Date.now() - since) / 1000;
  since = Date.now();
  const open = questions.findIndex(other => !(other.name in mine));
  asked = open < 0 ? questions.length : open;
  keep();
  draw();
}
function draw() {
  const item = sheet.items[at], mine = own();
  $("image").src = item.image;
  $("number").textContent = (at + 1) + " of " + sheet.items.length;
  $("promptbox").hidden = !sheet.prompts;
  $("prompt").textContent = item.prompt || "";
  const finished = sheet.items.filter(one => complete(one.number)).length;
  $("done").style.width = 100 * finished / sheet.items.length + "%";
  const box = $("questions");
  box.replaceChildren();
  questions.forEach((q, k) => {
    const field = document.createElement("fieldset"), title = document.createElement("legend");
    field.className = k === asked ? "now" : "";
    title.textContent = q.text;
    field.append(title);
    const row = document.createElement("div");
    row.className = "row";
    if (q.ends) row.append(note(q.ends[0]));
    choices(q).forEach(([text, value, key]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = mine[q.name] === value ? "on" : "";
      button.setAttribute("aria-pressed", mine[q.name] === value);
      button.append(text);
      if (text !== key) {
        const hint = document.createElement("kbd");
        hint.textContent = " " + key;
        button.append(hint);
      }
      button.onclick = () => answer(q, value);
      row.append(button);
    });
    if (q.ends) row.append(note(q.ends[1]));
    field.append(row);
    box.append(field);
  });
  $("next").disabled = !complete(item.number);
  $("back").disabled = at === 0;
}
function note(text) {
  const span = document.createElement("span");
  span.className = "soft";
  span.textContent = text;
  return span;
}
function go(to) {
  if (to >= sheet.items.length) return end();
  at = Math.max(0, to);
  const open = questions.findIndex(q => !(q.name in own()));
  asked = open < 0 ? questions.length : open;
  since = Date.now();
  keep();
  show("rating");
  draw();
}
function end() {
  const left = sheet.items.filter(item => !complete(item.number)).length;
  $("endsays").textContent = left
    ? left + " of " + sheet.items.length + " images are not fully answered yet. You may download what there is."
    : "All " + sheet.items.length + " images are answered.";
  show("end");
  $("csv").focus();
}
function rows() {
  return sheet.items.filter(item => questions.some(q => q.name in (answers[item.number] || {}))).map(item => {
    const mine = answers[item.number], row = {sheet: sheet.id, rater, item: item.number};
    questions.forEach(q => row[q.name] = q.name in mine ? mine[q.name] : "");
    row.seconds = Math.round(mine.seconds || 0);
    return row;
  });
}
function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
const quoted = cell => /[",\\n]/.test(String(cell)) ? '"' + String(cell).replaceAll('"', '""') + '"' : String(cell);
const file = () => "ratings-" + sheet.id + "-" + rater.replace(/[^A-Za-z0-9_-]/g, "_");
function asCsv() {
  const names = ["sheet", "rater", "item", ...questions.map(q => q.name), "seconds"];
  const lines = [names, ...rows().map(row => names.map(name => row[name]))];
  return lines.map(line => line.map(quoted).join(",")).join("\\n") + "\\n";
}
$("csv").onclick = () => download(file() + ".csv", "text/csv", asCsv());
$("json").onclick = () => download(file() + ".json", "application/json", JSON.stringify(rows(), null, 2));
$("again").onclick = () => {
  const open = sheet.items.findIndex(item => !complete(item.number));
  go(open < 0 ? sheet.items.length - 1 : open);
};
$("next").onclick = () => go(at + 1);
$("back").onclick = () => go(at - 1);
$("finish").onclick = end;
$("total").textContent = sheet.items.length;
document.querySelector("form").onsubmit = event => {
  event.preventDefault();
  rater = $("rater").value.trim();
  if (!rater) { $("startsays").textContent = "Please give a name or code first."; return; }
  try {
    const kept = JSON.parse(localStorage.getItem(place()) || "null");
    if (kept) { at = kept.at; answers = kept.answers; }
  } catch (error) { answers = {}; }
  go(Math.min(at, sheet.items.length - 1));
};
document.addEventListener("keydown", event => {
  if ($("rating").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (key === "enter" || key === "arrowright") { if (complete(sheet.items[at].number)) go(at + 1); }
  else if (key === "backspace" || key === "arrowleft") { if (at > 0) go(at - 1); }
  else {
    const now = questions[asked];
    const fits = q => choices(q).find(choice => choice[2] === key);
    const q = now && fits(now) ? now : questions.find(one => one.choices && fits(one));
    if (!q) return;
    answer(q, fits(q)[1]);
  }
  event.preventDefault();
});
$("rater").focus();
"""


class Shown(NamedTuple):
    """What a rater sees of an item: its number, the picture as a `data:` address, and the prompt if it is shown."""

    number: int
    image: str
    prompt: str = ""


def page(sheet_id: str, items: Sequence[Shown], *, prompts: bool) -> str:
    """The whole page. It holds nothing that tells a real image from another: no file name, no system, no key.

    `prompts`: show each image's prompt and ask whether the image follows it.
    """
    shown = [
        {"number": item.number, "image": item.image} | ({"prompt": item.prompt} if prompts else {}) for item in items
    ]
    told = json.dumps({"id": sheet_id, "prompts": prompts, "items": shown}).replace("<", "\\u003c")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Image study {escape(sheet_id)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>{_BODY}"
        f'<script type="application/json" id="sheet">{told}</script>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n'
    )
