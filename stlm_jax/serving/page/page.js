"use strict";

const $ = (id) => document.getElementById(id);
const SIDE = 1280; // pixels of an overlay's longer side
const AT_ONCE = 3; // requests
const cards = []; // of the session, the newest first
const waiting = [];
const models = new Map();
const chosen = new Map(); // a model's threshold, where a person has moved it
let running = 0, limit = Infinity, show = "", opened = null;

// What the server says, with the token, if there is one.
async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    $("login").hidden = false;
    tell(token ? "The server takes another token." : "The server wants a token.", true);
  }
  return answer;
}

function tell(text, bad = false) {
  $("state").textContent = text;
  $("state").classList.toggle("bad", bad);
}

async function reason(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `the server answers ${answer.status}`;
  }
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function begin() {
  try {
    const answer = await ask("/v1/models");
    if (answer.status === 401) return;
    if (answer.status === 503) {
      tell("The server is loading its models …");
      await pause(1);
      return begin();
    }
    if (!answer.ok) return tell(await reason(answer), true);
    const known = await answer.json();
    limit = known.max_upload_bytes;
    models.clear();
    for (const model of known.models) models.set(model.name, model);
  } catch {
    tell("The server does not answer.", true);
    await pause(2);
    return begin();
  }
  $("login").hidden = true;
  const now = $("model").value;
  $("model").replaceChildren(...[...models.keys()].map((name) => new Option(name)));
  if (models.has(now)) $("model").value = now;
  $("choose").hidden = models.size < 2;
  describe();
  work();
}

function describe() {
  const model = models.get($("model").value);
  const what = model.category ? `Trained on ${model.category}` : "A trained model";
  const judged = model.threshold === null
    ? "has no threshold: set one below"
    : `defective above ${number(model.threshold)}`;
  tell(`${what}, sees ${model.image_size} px, ${judged}.`);
  draw();
}

const number = (value) => Number(value.toPrecision(4)).toString();

// Images wait here, a few are under way at once.
function add(files) {
  const template = $("card").content.firstElementChild;
  for (const file of files) {
    const element = template.cloneNode(true);
    const card = { file, element, model: $("model").value, result: null };
    element.querySelector(".name").textContent = element.querySelector(".name").title = file.name;
    element.querySelector(".picture").addEventListener("click", () => enlarge(card));
    cards.unshift(card);
    $("cards").prepend(element);
    if (file.size > limit) fail(card, `larger than ${Math.round(limit / 1e5) / 10} MB`);
    else waiting.push(card);
  }
  draw();
  work();
}

function work() {
  while (models.size && running < AT_ONCE && waiting.length) {
    running += 1;
    const card = waiting.shift();
    look(card)
      .catch(() => fail(card, "the server does not answer"))
      .finally(() => {
        running -= 1;
        draw();
        work();
      });
  }
}

async function look(card) {
  card.element.querySelector(".wait").textContent = "looking …";
  card.model ||= $("model").value;
  const query = new URLSearchParams({ model: card.model, side: SIDE });
  const headers = { Accept: "image/png", "Content-Type": "application/octet-stream" };
  let answer;
  for (;;) {
    answer = await ask(`/v1/predict?${query}`, { method: "POST", headers, body: card.file });
    if (answer.status !== 429 && answer.status !== 503) break;
    await pause(Number(answer.headers.get("Retry-After")) || 1);
  }
  if (answer.status === 401) {
    card.element.querySelector(".wait").textContent = "waiting for a token …";
    models.clear(); // until there is one
    waiting.unshift(card);
    return;
  }
  if (!answer.ok) return fail(card, await reason(answer));
  card.result = JSON.parse(answer.headers.get("STLM-Result"));
  card.overlay = URL.createObjectURL(await answer.blob());
  card.plain = URL.createObjectURL(card.file);
  const image = card.element.querySelector("img");
  image.src = card.overlay;
  image.hidden = false;
  card.element.querySelector(".wait").hidden = true;
  card.element.querySelector(".picture").disabled = false;
}

function fail(card, text) {
  card.failed = true;
  card.element.classList.add("failed");
  card.element.querySelector(".wait").textContent = text;
}

const thresholdOf = (name) => chosen.get(name) ?? models.get(name)?.threshold ?? null;

function verdict(card) {
  const threshold = thresholdOf(card.model);
  if (!card.result || threshold === null) return null;
  return card.result.score > threshold ? "defective" : "good";
}

// Everything that follows from scores and threshold: verdicts, counts, dots, the slider's ends.
function draw() {
  const name = $("model").value;
  const own = cards.filter((card) => card.result && card.model === name);
  const scores = own.map((card) => card.result.score);
  const threshold = thresholdOf(name);
  const model = models.get(name);
  $("session").hidden = cards.length === 0;
  $("judging").hidden = own.length === 0;

  for (const card of cards) {
    const found = verdict(card);
    const badge = card.element.querySelector(".badge");
    badge.textContent = card.result ? (found ?? "not judged") : "";
    badge.className = `badge ${found ?? "unjudged"}`;
    card.element.querySelector(".score").hidden = !card.result;
    card.element.querySelector(".score b").textContent = card.result ? number(card.result.score) : "";
    card.element.querySelector("img").alt = card.result ? `map over ${card.file.name}` : "";
    card.element.hidden = show !== "" && found !== show;
  }
  $("none").hidden = cards.length === 0 || cards.some((card) => !card.element.hidden);
  $("count").textContent = own.length;
  for (const kind of ["defective", "good"]) {
    $(kind).textContent = threshold === null ? "–" : own.filter((card) => verdict(card) === kind).length;
  }
  if (own.length === 0) return;

  const marks = [...scores, ...(threshold === null ? [] : [threshold]), ...(model?.threshold == null ? [] : [model.threshold])];
  const least = Math.min(...marks), most = Math.max(...marks);
  const margin = (most - least) * 0.08 || Math.abs(most) * 0.1 || 0.01;
  const low = least >= 0 ? Math.max(0, least - margin) : least - margin, high = most + margin;
  const slider = $("threshold");
  if (document.activeElement !== slider || !slider.matches(":active")) {
    slider.min = low;
    slider.max = high;
    slider.value = threshold ?? high;
  }
  const [from, to] = [Number(slider.min), Number(slider.max)];
  $("least").textContent = number(from);
  $("most").textContent = number(to);
  $("value").textContent = threshold === null ? "none" : number(threshold);
  slider.setAttribute("aria-valuetext", $("value").textContent);
  $("reset").disabled = !chosen.has(name);
  $("reset").hidden = model?.threshold == null;
  $("dots").replaceChildren(...own.map((card) => {
    const dot = document.createElement("i");
    dot.className = verdict(card) ?? "unjudged";
    dot.style.setProperty("--at", (card.result.score - from) / (to - from));
    return dot;
  }));
}

function enlarge(card) {
  opened = card;
  const found = verdict(card);
  const regions = card.result.region_count;
  const parts = [card.file.name, found ?? "not judged", `score ${number(card.result.score)}`,
    `${card.result.width} × ${card.result.height} px`];
  if (regions !== null) parts.push(`${regions} region${regions === 1 ? "" : "s"} above the map’s threshold`);
  $("what").textContent = parts.join(" · ");
  swap(false);
  $("large").showModal();
}

function swap(plain) {
  $("swap").ariaPressed = String(plain);
  const image = $("large").querySelector("img");
  image.src = plain ? opened.plain : opened.overlay;
  image.alt = plain ? opened.file.name : `map over ${opened.file.name}`;
}

for (const id of ["files", "camera"]) {
  $(id).addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = ""; // the same file may come again
  });
}
const drop = $("drop");
// Beside the field too: else the browser would leave the page for the image.
addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => add([...event.clipboardData.files]));

$("model").addEventListener("change", describe);
$("threshold").addEventListener("input", (event) => {
  chosen.set($("model").value, Number(event.target.value));
  draw();
});
$("reset").addEventListener("click", () => {
  chosen.delete($("model").value);
  draw();
});
for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    show = button.dataset.show;
    for (const other of document.querySelectorAll("[data-show]")) other.ariaPressed = String(other === button);
    draw();
  });
}
$("clear").addEventListener("click", () => {
  for (const card of cards) {
    card.element.remove();
    for (const url of [card.overlay, card.plain]) if (url) URL.revokeObjectURL(url);
  }
  cards.length = waiting.length = 0;
  draw();
});
$("swap").addEventListener("click", () => swap($("swap").ariaPressed !== "true"));
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  begin();
});
begin();
