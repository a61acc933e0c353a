// Small squares of a picture: what lies under a box, for the list, the graph and the documents.

const SIDE = 96;
const WHOLE = { cx: 0.5, cy: 0.5, w: 1, h: 1 };
const made = new WeakMap();

// The middle of what is under the box, as a data URI of SIDE x SIDE pixels. Each is made once.
export function crop(doc, box = WHOLE) {
  const known = made.get(doc) ?? made.set(doc, new Map()).get(doc), key = JSON.stringify(box);
  if (!known.has(key)) known.set(key, cut(doc, box));
  return known.get(key);
}

function cut({ small }, { cx, cy, w, h }) {
  const { width, height } = small, canvas = document.createElement("canvas"), side = Math.max(Math.min(w * width, h * height), 1);
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, cx * width - side / 2, cy * height - side / 2, side, side, 0, 0, SIDE, SIDE);
  return canvas.toDataURL();
}
