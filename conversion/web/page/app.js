// The page: takes images, shows what the worker says of them, judges by the threshold.

const byId = (id) => document.getElementById(id);
const [status, slider, field, overlay] = ["status", "slider", "threshold", "overlay"].map(byId);
const results = byId("results");
const cards = new Map(); // by number: { element, score, judged, urls }
let description;
let threshold = null;

function say(text, failed = false) {
  status.textContent = text;
  status.hidden = !text;
  status.classList.toggle("failed", failed);
  if (failed) status.setAttribute("role", "alert");
}

/** A number with as many digits as tell scores apart. */
const written = (number) =>
  Math.abs(number) >= 0.001 || number === 0 ? number.toFixed(4) : number.toExponential(2);

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// --- the threshold: the slider moves in log-odds, for scores are means of a sigmoid's values ---

const logOdds = (share) => Math.log(share / (1 - share));
const share = (odds) => 1 / (1 + Math.exp(-odds));

function setThreshold(value, from) {
  threshold = value;
  if (from !== slider && value !== null) {
    slider.value = logOdds(Math.min(1 - 1e-9, Math.max(1e-9, value)));
  }
  if (from !== field) field.value = value === null ? "" : Number(value.toPrecision(6));
  byId("stored").disabled = value === description.threshold;
  for (const card of cards.values()) judge(card);
  count();
}

function judge(card) {
  if (card.score === undefined) return;
  let verdict = "not judged";
  if (card.judged && threshold !== null) verdict = card.score > threshold ? "anomalous" : "good";
  card.element.dataset.verdict = verdict;
  card.element.querySelector(".verdict").textContent = verdict;
}

function count() {
  const all = [...cards.values()];
  const of = (verdict) => all.filter((card) => card.element.dataset.verdict === verdict).length;
  const waiting = all.filter((card) => card.element.dataset.state === "waiting").length;
  const parts = [`${all.length} image${all.length === 1 ? "" : "s"}`];
  for (const verdict of ["anomalous", "good", "not judged", "unreadable"]) {
    if (of(verdict)) parts.push(`${of(verdict)} ${verdict}`);
  }
  if (waiting) parts.push(`${waiting} waiting`);
  byId("count").textContent = all.length ? parts.join(" · ") : "";
  byId("bar").hidden = !all.length;
}

// --- cards ---

function addFiles(files) {
  for (const file of files) {
    const id = cards.size ? Math.max(...cards.keys()) + 1 : 1;
    const card = element("li", "card waiting");
    card.dataset.state = "waiting";
    const picture = element("button", "picture", "waiting");
    picture.disabled = true;
    picture.title = "Larger or smaller";
    picture.addEventListener("click", () => card.classList.toggle("whole"));
    card.append(picture, element("div", "text"));
    card.lastChild.append(element("p", "name", file.name));
    results.prepend(card);
    cards.set(id, { element: card, urls: {} });
    worker.postMessage({ id, file });
  }
  count();
}

function show(card) {
  const image = card.element.querySelector("img");
  if (image) image.src = overlay.checked ? card.urls.overlay : card.urls.plain;
}

function finish(id, data) {
  const card = cards.get(id);
  if (!card) return; // cleared meanwhile
  card.element.classList.remove("waiting");
  const [picture, text] = card.element.children;
  if (data.kind === "problem") {
    Object.assign(card.element.dataset, { state: "failed", verdict: "unreadable" });
    picture.textContent = "no picture";
    text.append(element("p", "note", data.text));
    return count();
  }
  const { score, judged, width, height, times, remarks } = data;
  Object.assign(card, { score, judged });
  card.urls = { plain: URL.createObjectURL(data.plain), overlay: URL.createObjectURL(data.overlay) };
  const image = element("img", "");
  image.alt = card.element.querySelector(".name").textContent;
  picture.replaceChildren(image);
  picture.disabled = false;
  const line = element("p", "line");
  line.append(element("span", "verdict"), element("span", "score", written(score)));
  const spent = Math.round(times.prepare + times.model);
  const facts = [`${width}\u00a0×\u00a0${height}\u00a0px`, `${spent}\u00a0ms`];
  if (description.threshold !== null) {
    const odds = (score - description.threshold) / description.normaliser;
    facts.unshift(`normalised ${share(odds).toFixed(3)}`);
  }
  text.append(line, element("p", "more", facts.join(" · ")));
  for (const remark of remarks) text.append(element("p", "note", remark));
  Object.assign(card.element.dataset, {
    state: "done", score, prepare: times.prepare, model: times.model,
  });
  judge(card);
  show(card);
  count();
}

function clear() {
  for (const { urls } of cards.values()) Object.values(urls).forEach((url) => URL.revokeObjectURL(url));
  cards.clear();
  results.replaceChildren();
  count();
}

// --- the model ---

function describe(said) {
  description = said;
  const { category, image_size: side, threshold: stored } = said;
  const name = category || "Anomaly detector";
  document.title = byId("title").textContent = name;
  byId("facts").textContent = stored === null
    ? `Sees ${side} × ${side} px. No threshold is stored: set one, and images are judged.`
    : `Sees ${side} × ${side} px. Threshold ${written(stored)} (of ${said.calibration_images} ` +
      `images, ${said.calibration_source.replace("_", " ")}): anomalous is what scores above.`;
  const [low, , high] = said.colour_scale;
  const [first, last] = byId("scale").querySelectorAll("i");
  [first.textContent, last.textContent] = [low, high].map((value) => Number(value.toFixed(3)));
  const limit = said.pixel_threshold;
  byId("outlined").textContent = limit === null ? "" : `outlined above ${written(limit)}`;
  byId("scale").hidden = false;
  byId("about").textContent = `Weights ${said.weights_sha256.slice(0, 12)}, ${said.precision}, ` +
    `stlm_jax ${said.version}, onnxruntime-web ${said.onnxruntime_web}.`;
  const middle = stored > 0 && stored < 1 ? logOdds(stored) : 0;
  slider.min = Math.min(-7, middle - 3);
  slider.max = Math.max(7, middle + 3);
  setThreshold(stored);
}

const worker = new Worker("worker.js", { type: "module" });
worker.onerror = (event) => {
  event.preventDefault();
  say(`The model's program did not start (${event.message ?? "see the console"}).`, true);
};
worker.onmessage = ({ data }) => {
  if (data.kind === "description") describe(data.description);
  // The other file may still be coming when one was found wanting.
  const failed = status.classList.contains("failed");
  if (data.kind === "progress" && !failed) say(`Loading the model: ${Math.floor(100 * data.part)} %`);
  if (data.kind === "failed") say(`The model cannot be loaded: ${data.text}`, true);
  if (data.kind === "ready") {
    say("");
    byId("controls").hidden = false;
    document.body.dataset.ready = "yes";
  }
  if (data.kind === "result" || data.kind === "problem") finish(data.id, data);
};
say("Loading the model");

for (const input of [byId("files"), byId("camera")]) {
  input.addEventListener("change", () => {
    addFiles(input.files);
    input.value = ""; // so that the same file can be chosen again
  });
}
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (document.body.dataset.ready) addFiles(event.dataTransfer.files);
});
slider.addEventListener("input", () => setThreshold(share(Number(slider.value)), slider));
field.addEventListener("input", () => {
  setThreshold(field.value === "" ? null : Number(field.value), field);
});
byId("stored").addEventListener("click", () => setThreshold(description.threshold));
overlay.addEventListener("change", () => cards.forEach(show));
byId("clear").addEventListener("click", clear);
