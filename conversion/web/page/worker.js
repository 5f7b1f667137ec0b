// Runs the model beside the page, which stays responsive.

import * as ort from "./ort/ort.js";
import { decode, preview, partsOf } from "./image.js";
import { drawOverlay } from "./overlay.js";
import { resizeMap, toSquare } from "./resize.js";

const LONGEST = 960; // pixels of a picture on the screen
let model; // { session, description, colours }, once loaded

async function fetched(name, description, done) {
  const response = await fetch(name, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${name}: the server answers ${response.status}`);
  const total = description.files[name];
  const content = new Uint8Array(total);
  let length = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { value, done: ended } = await reader.read();
    if (ended) break;
    if (length + value.length > total) throw new Error(`${name}: is not the file of this export`);
    content.set(value, length);
    length += value.length;
    done(length);
  }
  if (length !== total) throw new Error(`${name}: came in part, ${length} of ${total} bytes`);
  return content;
}

async function requireDigest(content, expected) {
  if (!self.crypto.subtle) return; // only https and localhost have it
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const found = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== expected) {
    throw new Error("model.onnx is damaged or of another export than description.json");
  }
}

async function coloursOf(name) {
  const bitmap = await createImageBitmap(await (await fetch(name)).blob());
  return preview(bitmap, 256).getImageData(0, 0, 256, 1).data;
}

async function load() {
  const description = await (await fetch("description.json", { cache: "no-cache" })).json();
  postMessage({ kind: "description", description });
  const names = ["model.onnx", "ort/ort.wasm"];
  const total = names.reduce((sum, name) => sum + description.files[name], 0);
  const done = {};
  const contents = await Promise.all(names.map((name) => fetched(name, description, (length) => {
    done[name] = length;
    const part = Object.values(done).reduce((sum, bytes) => sum + bytes, 0) / total;
    postMessage({ kind: "progress", part });
  })));
  await requireDigest(contents[0], description.file_sha256);
  ort.env.wasm.numThreads = 1; // more need headers that a plain static host does not send
  ort.env.wasm.wasmBinary = contents[1].buffer;
  const session = await ort.InferenceSession.create(contents[0], {
    executionProviders: ["wasm"],
    logSeverityLevel: 3,
  });
  model = { session, description, colours: await coloursOf("inferno.png") };
}

/** The part of the square's map in which the image lies. */
function inside(map, side, box) {
  if (box.width === side && box.height === side) return map;
  const inner = new Float32Array(box.width * box.height);
  for (let y = 0; y < box.height; y++) {
    const from = (box.top + y) * side + box.left;
    inner.set(map.subarray(from, from + box.width), y * box.width);
  }
  return inner;
}

function meanOfLargest(values, count) {
  const largest = values.slice().sort().subarray(Math.max(0, values.length - count));
  return largest.reduce((sum, value) => sum + value, 0) / largest.length;
}

async function lookAt(file) {
  const { session, description, colours } = model;
  const { image_size: side, score_top_k: topK, pixel_threshold: limit } = description;
  const start = performance.now();
  const { bitmap, remarks, judged } = await decode(file);
  const { width, height } = bitmap;
  const { square, box } = toSquare(width, height, partsOf(bitmap), {
    side,
    geometry: description.geometry,
    pillow: parseInt(description.pillow, 10),
  });
  const prepared = performance.now();
  const image = new ort.Tensor("uint8", square, [1, side, side, 3]);
  const result = await session.run({ image });
  const ran = performance.now();
  const map = inside(result.anomaly_map.data, side, box);
  const score = map === result.anomaly_map.data
    ? result.anomaly_score.data[0]
    : meanOfLargest(map, topK);
  if (!map.every(Number.isFinite) || !Number.isFinite(score)) {
    throw new Error("the model's map or score of it is not finite, so it cannot be judged");
  }
  const context = preview(bitmap, LONGEST);
  bitmap.close();
  const { canvas } = context;
  const plain = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const full = resizeMap(map, box.width, box.height, canvas.width, canvas.height);
  const { colour_scale: ticks } = description;
  drawOverlay(pixels.data, full, canvas.width, canvas.height, ticks, limit, colours);
  context.putImageData(pixels, 0, 0);
  const overlay = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
  const times = { prepare: prepared - start, model: ran - prepared };
  return { width, height, score, judged, remarks, plain, overlay, times };
}

let queue = load().then(
  () => postMessage({ kind: "ready" }),
  (error) => postMessage({ kind: "failed", text: error.message ?? String(error) }),
);
onmessage = ({ data: { id, file } }) => {
  queue = queue.then(async () => {
    if (!model) return;
    try {
      postMessage({ kind: "result", id, ...(await lookAt(file)) });
    } catch (error) {
      postMessage({ kind: "problem", id, text: error.message ?? String(error) });
    }
  });
};
