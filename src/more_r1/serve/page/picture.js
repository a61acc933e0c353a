// Pictures from files, drops and pastes.

const KINDS = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
// As base64 in a body of 32 MiB.
const LARGEST = 23_000_000;
// Pixels of the longer side of what small pieces are cut from.
const ENOUGH = 2048;

export class PictureError extends Error {}

// {name, image (a data URI), small (a canvas), width, height}. Raises PictureError with a sentence for the person.
export async function readPicture(file) {
  const name = file.name || "pasted.png";
  if (!KINDS.includes(file.type)) throw new PictureError(`${name} is no picture that can be read here. Give a PNG, JPEG, WebP, GIF or BMP.`);
  if (file.size > LARGEST) throw new PictureError(`${name} has ${Math.ceil(file.size / 1e6)} MB. Scale it down below ${LARGEST / 1e6} MB.`);
  return measured(name, await asUri(file));
}

export async function measured(name, uri) {
  const whole = new Image();
  whole.src = uri;
  try {
    await whole.decode();
  } catch {
    throw new PictureError(`${name} cannot be shown: the file is broken. Save it again as PNG or JPEG.`);
  }
  return { name, image: uri, small: shrunk(whole), width: whole.naturalWidth, height: whole.naturalHeight };
}

function shrunk(whole) {
  const canvas = document.createElement("canvas"), { naturalWidth: width, naturalHeight: height } = whole;
  const scale = Math.min(1, ENOUGH / Math.max(width, height));
  [canvas.width, canvas.height] = [Math.max(scale * width, 1), Math.max(scale * height, 1)];
  canvas.getContext("2d").drawImage(whole, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const asUri = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => failed(new PictureError(`${file.name} cannot be read. Choose it again.`));
  reader.readAsDataURL(file);
});

// Calls `take(files)` for all files dropped on or pasted into the page, and for those chosen in `input`.
export function onPictures(page, input, take) {
  const has = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0;
  const hover = (by) => { depth = by === null ? 0 : depth + by; page.classList.toggle("dropping", depth > 0); };
  page.addEventListener("dragenter", (event) => has(event) && hover(1));
  page.addEventListener("dragleave", (event) => has(event) && hover(-1));
  page.addEventListener("dragover", (event) => has(event) && event.preventDefault());
  page.addEventListener("drop", (event) => {
    if (!has(event)) return;
    event.preventDefault();
    hover(null);
    take([...event.dataTransfer.files]);
  });
  page.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = "";
    if (files.length) take(files);
  });
}
