// Painting a mask: white is drawn anew. Brush and eraser, undo, touch and pen; two fingers zoom.
import { $, say, tell } from "./frame.js";

const dialog = $("#mask");

/** Open the board over a picture; the mask as a PNG file, or null where it was left. */
export async function open(link, before) {
  const picture = await loaded(link);
  const { canvas, controls } = board(picture);
  const layer = Object.assign(document.createElement("canvas"), { width: picture.naturalWidth, height: picture.naturalHeight });
  const pen = layer.getContext("2d");
  if (before) await under(pen, before);
  const undo = [];
  let zoom = 1;

  const paint = () => {
    const on = canvas.getContext("2d");
    on.globalAlpha = 1;
    on.drawImage(picture, 0, 0, canvas.width, canvas.height);
    on.globalAlpha = 0.55;
    on.drawImage(tinted(layer), 0, 0);
  };
  const keep = () => {
    undo.push(pen.getImageData(0, 0, layer.width, layer.height));
    if (undo.length > 20) undo.shift();
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * layer.width, ((event.clientY - box.top) / box.height) * layer.height];
  };
  const stroke = (from, to, pressure) => {
    pen.globalCompositeOperation = controls.erase.getAttribute("aria-pressed") === "true" ? "destination-out" : "source-over";
    pen.strokeStyle = "#fff";
    pen.lineWidth = Number(controls.size.value) * (pressure || 1);
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(to[0] + 0.01, to[1]);
    pen.stroke();
    paint();
  };

  const fingers = new Map();
  let last = null;
  let apart = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    if (fingers.size === 2) {
      if (last) back();
      last = null;
      apart = spread(fingers) / zoom;
      return;
    }
    keep();
    last = at(event);
    stroke(last, last, event.pointerType === "pen" ? event.pressure : 1);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    fingers.set(event.pointerId, event);
    if (fingers.size === 2) {
      zoom = Math.min(6, Math.max(1, spread(fingers) / apart));
      canvas.style.transform = zoom === 1 ? "" : `scale(${zoom})`;
    } else if (last) {
      const now = at(event);
      stroke(last, now, event.pointerType === "pen" ? event.pressure : 1);
      last = now;
    }
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => { fingers.delete(event.pointerId); last = null; });
  }
  const back = () => {
    const earlier = undo.pop();
    if (earlier) pen.putImageData(earlier, 0, 0);
    paint();
  };
  controls.undo.addEventListener("click", back);
  controls.erase.addEventListener("click", () => {
    controls.erase.setAttribute("aria-pressed", String(controls.erase.getAttribute("aria-pressed") !== "true"));
  });
  controls.clear.addEventListener("click", () => { keep(); pen.clearRect(0, 0, layer.width, layer.height); paint(); });
  controls.invert.addEventListener("click", () => { keep(); invert(pen, layer); paint(); });
  controls.save.addEventListener("click", async () => {
    const file = await written(layer, controls.name.value.trim() || dialog.dataset.words);
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: file.name });
    link.click();
    URL.revokeObjectURL(link.href);
  });
  controls.load.addEventListener("change", async () => {
    const [file] = controls.load.files;
    controls.load.value = "";
    if (!file) return;
    const mask = await createImageBitmap(file).catch(() => null);
    if (!mask) return tell(say("mask.no_picture", { name: file.name }));
    keep();
    lay(pen, mask);
    paint();
  });
  // by keys: the arrows move a cross, Space paints there
  let cross = [layer.width / 2, layer.height / 2];
  canvas.addEventListener("keydown", (event) => {
    const step = Number(controls.size.value) / 2;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves) {
      cross = [cross[0] + moves[event.key][0], cross[1] + moves[event.key][1]];
      paint();
      ring(canvas.getContext("2d"), cross, step);
    } else if (event.key === " ") {
      keep();
      stroke(cross, cross, 1);
      ring(canvas.getContext("2d"), cross, step);
    } else return;
    event.preventDefault();
  });
  dialog.onkeydown = (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") { event.preventDefault(); back(); }
  };
  paint();
  dialog.showModal();
  return new Promise((done) => {
    controls.use.addEventListener("click", async () => {
      const file = await written(layer, controls.name.value.trim() || dialog.dataset.words);
      dialog.close();
      done(file);
    });
    controls.leave.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => done(null), { once: true });
  });
}

async function loaded(link) {
  const picture = new Image();
  picture.src = `/page/whole?link=${encodeURIComponent(link)}`;
  await picture.decode();
  return picture;
}

/** What was painted before is white where it was; everything else is clear. */
async function under(pen, link) {
  const mask = await loaded(link).catch(() => null);
  if (mask) lay(pen, mask);
}

/** A mask takes the place of what was painted: its white is drawn anew, whatever its size. */
function lay(pen, mask) {
  const { width, height } = pen.canvas;
  pen.globalCompositeOperation = "source-over";
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(mask, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height);
  for (let n = 0; n < pixels.data.length; n += 4) {
    pixels.data[n + 3] = pixels.data[n];
    pixels.data[n] = pixels.data[n + 1] = pixels.data[n + 2] = 255;
  }
  pen.putImageData(pixels, 0, 0);
}

function tinted(layer) {
  const copy = Object.assign(document.createElement("canvas"), { width: layer.width, height: layer.height });
  const on = copy.getContext("2d");
  on.drawImage(layer, 0, 0);
  on.globalCompositeOperation = "source-in";
  on.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--lamp");
  on.fillRect(0, 0, copy.width, copy.height);
  return copy;
}

function invert(pen, { width, height }) {
  const pixels = pen.getImageData(0, 0, width, height);
  for (let n = 0; n < pixels.data.length; n += 4) {
    pixels.data[n] = pixels.data[n + 1] = pixels.data[n + 2] = 255;
    pixels.data[n + 3] = 255 - pixels.data[n + 3];
  }
  pen.putImageData(pixels, 0, 0);
}

function ring(on, [x, y], radius) {
  on.globalAlpha = 1;
  on.strokeStyle = "#fff";
  on.lineWidth = 2;
  on.beginPath();
  on.arc(x, y, radius, 0, 7);
  on.stroke();
}

function spread(fingers) {
  const [a, b] = [...fingers.values()];
  return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
}

function written(layer, name) {
  const whole = Object.assign(document.createElement("canvas"), { width: layer.width, height: layer.height });
  const on = whole.getContext("2d");
  on.fillRect(0, 0, whole.width, whole.height);
  on.drawImage(layer, 0, 0);
  return new Promise((done) => whole.toBlob((blob) => done(new File([blob], `${name}.png`, { type: "image/png" })), "image/png"));
}

function board(picture) {
  const canvas = Object.assign(document.createElement("canvas"), { width: picture.naturalWidth, height: picture.naturalHeight, tabIndex: 0 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", say("mask.board"));
  const frame = document.createElement("div");
  frame.className = "board";
  frame.append(canvas);
  const bar = document.createElement("div");
  bar.className = "bar";
  const button = (key, look = "button") => {
    const made = Object.assign(document.createElement("button"), { type: "button", className: look, textContent: say(`mask.${key}`) });
    made.dataset.mask = key;
    return made;
  };
  const labelled = (key, input) => {
    const label = document.createElement("label");
    label.append(say(`mask.${key}`), " ", input);
    return label;
  };
  const most = Math.max(16, Math.round(Math.max(canvas.width, canvas.height) / 2));
  const controls = {
    size: Object.assign(document.createElement("input"), { type: "range", min: "2", max: String(most), value: String(Math.round(most / 5)) }),
    name: Object.assign(document.createElement("input"), { type: "text", value: dialog.dataset.words, maxLength: 60 }),
    erase: button("erase"),
    undo: button("undo"),
    clear: button("clear"),
    invert: button("invert"),
    load: Object.assign(document.createElement("input"), { type: "file", accept: "image/*", className: "sr" }),
    save: button("save"),
    leave: button("leave", "button quiet"),
    use: button("use", "button main"),
  };
  controls.erase.setAttribute("aria-pressed", "false");
  const loader = labelled("load", controls.load);
  loader.className = "button";
  bar.append(labelled("size", controls.size), controls.erase, controls.undo, controls.clear, controls.invert, loader, controls.save, labelled("called", controls.name), controls.leave, controls.use);
  dialog.replaceChildren(frame, bar);
  return { canvas, controls };
}
