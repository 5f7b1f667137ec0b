// Image files to pixels, as the Python reader decodes them: upright, without a change of colours,
// laid over black.

const LARGE = 50e6; // pixels

/** What is to be said of a file before it is decoded, and whether it cannot be judged. */
async function remarksOf(file) {
  try {
    return await remarksOfHeader(file);
  } catch (error) {
    if (error instanceof RangeError) return []; // cut off: decoding says so
    throw error;
  }
}

async function remarksOfHeader(file) {
  const head = new DataView(await file.slice(0, 32).arrayBuffer());
  if (head.byteLength >= 26 && head.getUint32(0) === 0x89504e47 && head.getUint8(24) === 16) {
    return ["16 bits a channel, of which the browser keeps 8: not judged"];
  }
  if (head.byteLength >= 4 && head.getUint16(0) === 0xffd8 && (await channelsOf(file)) === 4) {
    return ["CMYK, which the browser converts otherwise: not judged"];
  }
  if (text(head, 0, 4) === "RIFF" && (await isTurnedWebp(file))) {
    return ["turned by EXIF, which browsers overlook in a WebP: not judged"];
  }
  return [];
}

const text = (view, at, length) =>
  String.fromCharCode(...new Uint8Array(view.buffer, at, Math.min(length, view.byteLength - at)));

/** Whether the EXIF of a WebP says that its pixels are not upright. */
async function isTurnedWebp(file) {
  for (let at = 12; at + 8 <= file.size; ) {
    const chunk = new DataView(await file.slice(at, at + 8).arrayBuffer());
    const length = chunk.getUint32(4, true);
    if (text(chunk, 0, 4) === "EXIF") {
      return isTurned(new DataView(await file.slice(at + 8, at + 8 + length).arrayBuffer()));
    }
    at += 8 + length + (length % 2);
  }
  return false;
}

function isTurned(exif) {
  const begin = text(exif, 0, 4) === "Exif" ? 6 : 0; // some writers put a JPEG's header before it
  const little = text(exif, begin, 2) === "II";
  const entries = begin + exif.getUint32(begin + 4, little);
  for (let i = 0; i < exif.getUint16(entries, little); i++) {
    const entry = entries + 2 + i * 12;
    if (exif.getUint16(entry, little) === 0x112) return exif.getUint16(entry + 8, little) !== 1;
  }
  return false;
}

/** The channels of a JPEG, from its frame's header. */
async function channelsOf(file) {
  for (let at = 2; at + 10 <= file.size; ) {
    const segment = new DataView(await file.slice(at, at + 10).arrayBuffer());
    const marker = segment.getUint16(0);
    if (marker >> 8 !== 0xff) return 0;
    const isFrame = (marker & 0xf0) === 0xc0 && ![0xffc4, 0xffc8, 0xffcc].includes(marker);
    if (isFrame) return segment.getUint8(9);
    at += marker === 0xffff ? 1 : 2 + segment.getUint16(2);
  }
  return 0;
}

/** The image of a file, a bitmap, with what is to be said of it and whether it can be judged. */
export async function decode(file) {
  const remarks = await remarksOf(file);
  const judged = remarks.length === 0;
  let bitmap;
  try {
    // Python ignores colour profiles. Premultiplying is what lays transparent pixels over black.
    bitmap = await createImageBitmap(file, {
      colorSpaceConversion: "none",
      imageOrientation: "from-image",
      premultiplyAlpha: "premultiply",
    });
  } catch {
    throw new Error("the browser cannot read it as an image");
  }
  const megapixels = (bitmap.width * bitmap.height) / 1e6;
  if (bitmap.width * bitmap.height > LARGE) {
    remarks.push(`${megapixels.toFixed(0)} megapixels take much memory: make it smaller`);
  }
  return { bitmap, remarks, judged };
}

function blackCanvas(width, height) {
  const options = { alpha: false, willReadFrequently: true };
  return new OffscreenCanvas(width, height).getContext("2d", options);
}

/** A function that gives parts of a bitmap as RGBA, at its own size; the first is the largest. */
export function partsOf(bitmap) {
  let context;
  return (left, top, width, height) => {
    context ??= blackCanvas(width, height);
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, left, top, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  };
}

/** A bitmap for the screen, of at most `longest` pixels a side. */
export function preview(bitmap, longest) {
  const factor = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * factor));
  const height = Math.max(1, Math.round(bitmap.height * factor));
  const context = blackCanvas(width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return context;
}
