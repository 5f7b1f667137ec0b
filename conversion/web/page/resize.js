// How an image becomes the square that the network sees: Pillow's bilinear resizing, bit for bit.
// A canvas resizes otherwise, and scores would differ.

const PRECISION = 22; // bits of a weight after the point, Pillow's for channels of eight bits
const FILL = 114; // grey of the padding

/** Rounds halves to even, as Python does. */
function round(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** Where in the square an image of width and height lies: left, top, width, height. */
export function contentBox(width, height, side, geometry) {
  if (geometry === "squash") return { left: 0, top: 0, width: side, height: side };
  const longer = Math.max(width, height);
  const [w, h] = [width, height].map((length) => Math.max(1, round((length * side) / longer)));
  return { left: Math.floor((side - w) / 2), top: Math.floor((side - h) / 2), width: w, height: h };
}

/**
 * What each of `outSize` pixels is the weighted sum of: first input pixel, how many, weights.
 * Where pixels become fewer, the triangle is widened: Pillow's antialiasing.
 */
export function weightsOf(inSize, outSize) {
  const scale = inSize / outSize;
  const support = Math.max(scale, 1);
  const stride = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(outSize);
  const count = new Int32Array(outSize);
  const weights = new Float64Array(outSize * stride);
  for (let out = 0; out < outSize; out++) {
    const centre = (out + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(inSize, Math.trunc(centre + support + 0.5));
    let sum = 0;
    for (let k = 0; k < end - begin; k++) {
      const weight = Math.max(0, 1 - Math.abs((k + begin - centre + 0.5) * (1 / support)));
      weights[out * stride + k] = weight;
      sum += weight;
    }
    for (let k = 0; k < end - begin; k++) if (sum !== 0) weights[out * stride + k] /= sum;
    first[out] = begin;
    count[out] = end - begin;
  }
  return { first, count, weights, stride };
}

function wholeWeightsOf(inSize, outSize) {
  const { first, count, weights, stride } = weightsOf(inSize, outSize);
  const whole = Int32Array.from(weights, (weight) => Math.floor(0.5 + weight * 2 ** PRECISION));
  return { first, count, weights: whole, stride };
}

const HALF = 1 << (PRECISION - 1);
const toByte = (sum) => Math.min(255, Math.max(0, sum >> PRECISION));

/**
 * Rows of pixels, RGB or RGBA by `channels`, to RGB of another width, row by row from `offset` on
 * in `out`, whose rows are `outStride` long.
 */
function resizeRows(pixels, channels, rows, width, table, out, offset, outStride) {
  const { first, count, weights, stride } = table;
  for (let row = 0; row < rows; row++) {
    let at = offset + row * outStride;
    for (let x = 0; x < first.length; x++) {
      let [r, g, b] = [HALF, HALF, HALF];
      let from = (row * width + first[x]) * channels;
      for (let k = 0, w = x * stride; k < count[x]; k++, w++, from += channels) {
        const weight = weights[w];
        r += pixels[from] * weight;
        g += pixels[from + 1] * weight;
        b += pixels[from + 2] * weight;
      }
      out[at++] = toByte(r);
      out[at++] = toByte(g);
      out[at++] = toByte(b);
    }
  }
}

/** Likewise, to another height. */
function resizeColumns(pixels, channels, width, table, out, offset, outStride) {
  const { first, count, weights, stride } = table;
  const sums = new Int32Array(width * 3);
  for (let y = 0; y < first.length; y++) {
    sums.fill(HALF);
    for (let k = 0; k < count[y]; k++) {
      const weight = weights[y * stride + k];
      let from = (first[y] + k) * width * channels;
      for (let i = 0; i < sums.length; i += 3, from += channels) {
        sums[i] += pixels[from] * weight;
        sums[i + 1] += pixels[from + 1] * weight;
        sums[i + 2] += pixels[from + 2] * weight;
      }
    }
    const at = offset + y * outStride;
    for (let i = 0; i < sums.length; i++) out[at + i] = toByte(sums[i]);
  }
}

/**
 * The square, RGB bytes, of an image, and where in it the image lies.
 *
 * `partOf(left, top, width, height)` gives pixels of the image as RGBA; it is asked for strips of
 * at most `strip` pixels. `pillow` is the version whose order of the two passes, which each round,
 * is followed: since 13 columns come first where height shrinks most.
 */
export function toSquare(width, height, partOf, { side, geometry, pillow, strip = 2 ** 21 }) {
  const box = contentBox(width, height, side, geometry);
  const [across, down] = [wholeWeightsOf(width, box.width), wholeWeightsOf(height, box.height)];
  const square = new Uint8Array(side * side * 3).fill(FILL);
  const offset = (box.top * side + box.left) * 3;
  const fewer = height - box.height;
  if (pillow >= 13 && fewer > 0 && fewer > (width - box.width) * 2) {
    const short = new Uint8Array(box.height * width * 3);
    const step = Math.max(1, Math.floor(strip / height));
    for (let left = 0; left < width; left += step) {
      const columns = Math.min(step, width - left);
      const part = partOf(left, 0, columns, height);
      resizeColumns(part, 4, columns, down, short, left * 3, width * 3);
    }
    resizeRows(short, 3, box.height, width, across, square, offset, side * 3);
    return { square, box };
  }
  const narrow = new Uint8Array(height * box.width * 3);
  const step = Math.max(1, Math.floor(strip / width));
  for (let top = 0; top < height; top += step) {
    const rows = Math.min(step, height - top);
    const [at, stride] = [top * box.width * 3, box.width * 3];
    resizeRows(partOf(0, top, width, rows), 4, rows, width, across, narrow, at, stride);
  }
  resizeColumns(narrow, 3, box.width, down, square, offset, side * 3);
  return { square, box };
}

/** A map of width and height, floats, to another size. */
export function resizeMap(map, width, height, outWidth, outHeight) {
  const across = weightsOf(width, outWidth);
  const down = weightsOf(height, outHeight);
  const narrow = new Float32Array(height * outWidth);
  const out = new Float32Array(outHeight * outWidth);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < outWidth; x++) {
      let sum = 0;
      for (let k = 0; k < across.count[x]; k++) {
        sum += map[y * width + across.first[x] + k] * across.weights[x * across.stride + k];
      }
      narrow[y * outWidth + x] = sum;
    }
  }
  for (let y = 0; y < outHeight; y++) {
    for (let x = 0; x < outWidth; x++) {
      let sum = 0;
      for (let k = 0; k < down.count[y]; k++) {
        sum += narrow[(down.first[y] + k) * outWidth + x] * down.weights[y * down.stride + k];
      }
      out[y * outWidth + x] = sum;
    }
  }
  return out;
}
