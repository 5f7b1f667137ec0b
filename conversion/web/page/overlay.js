// A map over its image, in the colours and with the outline of the pictures that Python draws.

const OPACITY = 0.85;
const OUTLINE = 2; // pixels

/** A map's value as its place on the colour scale, 0..1; ticks are its ends and its middle. */
function shareOf(value, [low, middle, high]) {
  const share = value < middle
    ? (0.5 * (value - low)) / (middle - low)
    : 0.5 + (0.5 * (value - middle)) / (high - middle);
  return Math.min(1, Math.max(0, share));
}

/** Draws a map of the picture's size over `pixels`, RGBA, in place; `colours` is a table, RGBA. */
export function drawOverlay(pixels, map, width, height, ticks, threshold, colours) {
  const entries = colours.length / 4;
  for (let i = 0; i < map.length; i++) {
    const at = i * 4;
    const share = shareOf(map[i], ticks);
    const opacity = OPACITY * share;
    const colour = Math.min(entries - 1, Math.floor(share * entries)) * 4;
    const grey =
      (pixels[at] * 19595 + pixels[at + 1] * 38470 + pixels[at + 2] * 7471 + 0x8000) >> 16;
    for (let c = 0; c < 3; c++) {
      pixels[at + c] = (1 - opacity) * grey + opacity * colours[colour + c];
    }
  }
  if (threshold === null) return;
  for (const i of edgeOf(map, width, height, threshold)) pixels.fill(255, i * 4, i * 4 + 3);
}

/** Pixels above the threshold that are within `OUTLINE` steps of one that is not. */
function edgeOf(map, width, height, threshold) {
  let inside = Uint8Array.from(map, (value) => value > threshold);
  const edge = [];
  for (let step = 0; step < OUTLINE; step++) {
    const smaller = inside.slice();
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        // A region that the picture cuts off has no edge there.
        const isEdge = inside[i] &&
          ((x > 0 && !inside[i - 1]) || (x + 1 < width && !inside[i + 1]) ||
            (y > 0 && !inside[i - width]) || (y + 1 < height && !inside[i + width]));
        if (isEdge) {
          smaller[i] = 0;
          edge.push(i);
        }
      }
    }
    inside = smaller;
  }
  return edge;
}
