// Boxes as MORE has them: centre and size, as fractions of the picture. Pure functions.

const SMALLEST = 0.01;
const round = (value) => Math.round(value * 1e5) / 1e5;
const clip = (value, low, high) => Math.min(Math.max(value, low), high);

const corners = ({ cx, cy, w, h }) => ({ left: cx - w / 2, top: cy - h / 2, right: cx + w / 2, bottom: cy + h / 2 });

// From two opposite corners in any order, kept inside of the picture and not smaller than a hundredth of it.
export function spanned(x0, y0, x1, y1) {
  const side = (a, b) => {
    const low = clip(Math.min(a, b), 0, 1 - SMALLEST);
    const high = clip(Math.max(a, b), low + SMALLEST, 1);
    return [round((low + high) / 2), round(high - low)];
  };
  const [[cx, w], [cy, h]] = [side(x0, x1), side(y0, y1)];
  return { cx, cy, w, h };
}

// The same size elsewhere, inside of the picture.
export const moved = (box, dx, dy) => ({
  ...box,
  cx: round(clip(box.cx + dx, box.w / 2, 1 - box.w / 2)),
  cy: round(clip(box.cy + dy, box.h / 2, 1 - box.h / 2)),
});

// One or two edges ("n", "se", ...) moved.
export function resized(box, edges, dx, dy) {
  const { left, top, right, bottom } = corners(box);
  const shift = (edge, value, by, low, high) => (edges.includes(edge) ? clip(value + by, low, high) : value);
  return spanned(
    shift("w", left, dx, 0, right - SMALLEST), shift("n", top, dy, 0, bottom - SMALLEST),
    shift("e", right, dx, left + SMALLEST, 1), shift("s", bottom, dy, top + SMALLEST, 1),
  );
}

const percent = (value) => `${Math.round(100 * value)} %`;

export function described(box) {
  const { left, top } = corners(box);
  return `${percent(left)} from the left, ${percent(top)} from the top, ${percent(box.w)} wide, ${percent(box.h)} high`;
}
