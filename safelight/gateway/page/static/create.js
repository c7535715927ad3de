// The form of Create: it lives in the address and in the browser, says what is wrong, and sends.
import { $, $$, changing, refusal, say, send, tell, typing } from "./frame.js";
import { lookAfter } from "./notices.js";
import { show, stop, watch } from "./watch.js";

const form = $("#form");
const workflow = form.dataset.workflow;
const kept = (name) => `form.${name}`;
const address = new URL(location.href);

// What was typed last comes back, unless the address says something itself.
if (address.searchParams.has("clean")) {
  localStorage.removeItem(kept(workflow));
  history.replaceState(null, "", address.pathname);
} else if (!address.search && localStorage.getItem(kept(workflow))) {
  location.replace(`/create/${workflow}?${localStorage.getItem(kept(workflow))}${location.hash}`);
} else if (location.pathname === "/create" && !address.search) {
  const last = localStorage.getItem("workflow");
  const there = $$("[data-choice]").some((choice) => choice.dataset.choice === last);
  if (last && last !== workflow && there) location.replace(`/create/${last}${location.hash}`);
}

const many = $("#many");
if (many && location.hash === "#many") {
  many.open = true;
  $("summary", many).focus();
  many.scrollIntoView({ block: "start" });
}

/** Text by the names of fields; what is as it was is left out. */
function values() {
  const typed = {};
  for (const field of $$("[data-field]", form)) {
    const { field: name, kind } = field.dataset;
    const of = $$(`[name="${CSS.escape(name)}"]`, field);
    const chosen = of.find((input) => input.type === "radio") ? of.find((input) => input.checked) : of[0];
    let value = chosen?.value ?? "";
    if (kind === "switch") value = String(of[0].checked);
    if (value !== "" && value !== field.dataset.default) typed[name] = value;
  }
  return typed;
}

function query(typed) {
  return new URLSearchParams(typed).toString();
}

function keep() {
  const text = query(values());
  const run = $("#run").dataset.run;
  localStorage.setItem("workflow", workflow);
  if (text) localStorage.setItem(kept(workflow), text);
  else localStorage.removeItem(kept(workflow));
  const shown = new URLSearchParams(text);
  if (run && address.searchParams.get("job")) shown.set("job", run);
  history.replaceState(null, "", `/create/${workflow}${shown.size ? `?${shown}` : ""}`);
}

function wrong(told, all) {
  const why = $("#why");
  for (const field of $$("[data-field]", form)) {
    const said = told[field.dataset.field] ?? "";
    if (!said && !all) continue;
    const place = $(":scope > .why", field);
    place.textContent = said;
    field.classList.toggle("wrong", Boolean(said));
    for (const input of $$("input:not([type=range]), textarea, select", field)) {
      if (said) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
    if (said) field.closest("details")?.setAttribute("open", "");
  }
  why.hidden = !told[""];
  why.textContent = told[""] ?? "";
}

let waiting = null;
let asked = 0;
function changed() {
  keep();
  clearTimeout(waiting);
  waiting = setTimeout(look, 350);
}

async function look() {
  const mine = ++asked;
  const { ok, told } = await send(`/create/${workflow}/check`, { values: values() });
  if (!ok || mine !== asked) return;
  wrong(told.wrong, true);
  $("#estimate").textContent = told.estimate;
  for (const [name, present] of Object.entries(told.present)) {
    const small = $(`[data-group="${CSS.escape(name)}"] summary small`, form);
    if (small) small.textContent = present;
  }
}

let key = null;
async function draw() {
  const button = $("#draw");
  if (button.disabled) return;
  button.disabled = true;
  key ??= crypto.randomUUID();
  try {
    const { ok, status, told } = await send(`/create/${workflow}`, { values: values() }, { "Idempotency-Key": key });
    if (ok) {
      key = null;
      wrong({}, true);
      lookAfter(told.batch ?? told.job, told.batch ? `/batches/${told.batch}` : `/jobs?job=${told.job}`);
      if (told.batch) {
        location.href = `/batches/${told.batch}`;
        return;
      }
      address.searchParams.set("job", told.job);
      $("#run").dataset.run = told.job;
      keep();
      await show(told.job);
      $(".stage").scrollIntoView({ block: "nearest", behavior: "smooth" });
    } else if (told.wrong) {
      key = null;
      wrong(told.wrong, true);
      const first = $(".field.wrong input, .field.wrong textarea, .field.wrong select", form);
      first?.focus();
    } else {
      if (status < 500) key = null;
      wrong({ "": refusal(told) }, false);
    }
  } catch {
    wrong({ "": say("lost") }, false); // the same key goes with the next press: nothing is drawn twice
  } finally {
    button.disabled = false;
  }
}

form.addEventListener("submit", (event) => { event.preventDefault(); draw(); });
form.addEventListener("input", (event) => {
  const { target } = event;
  if (target.dataset.for) $(`#${target.dataset.for}`).value = target.value;
  const range = target.id && $(`[data-for="${target.id}"]`, form);
  if (range && target.value !== "") range.value = target.value;
  if (target.closest(".loras") && !target.matches("[data-add-lora]")) loras(target.closest(".loras"));
  changed();
});
form.addEventListener("change", (event) => {
  const { target } = event;
  if (target.matches("[data-add-lora]") && target.value) addLora(target);
  if (target.type === "file") {
    take(target.closest(".drop"), [...target.files]);
    target.value = ""; // so that the same file, corrected, can be chosen again
  }
  if (target.name === "quality") location.href = `/create/${workflow}?${query(values())}`; // other tuned values
  peek(target);
});
form.addEventListener("click", (event) => {
  const dice = event.target.closest("[data-dice]");
  if (dice) {
    const drawn = crypto.getRandomValues(new Uint32Array(1))[0];
    $(`#${dice.dataset.dice}`).value = String(drawn);
    changed();
  }
  const away = event.target.closest("[data-drop-away]");
  if (away) {
    const drop = away.closest(".drop");
    away.closest("li").remove();
    link(drop);
  }
  const gone = event.target.closest("[data-lora-away]");
  if (gone) {
    const list = gone.closest(".loras");
    gone.closest("li").remove();
    loras(list);
    changed();
  }
  const shape = event.target.closest("[data-shape]");
  if (shape) shaped(...shape.dataset.shape.split(":").map(Number));
  if (event.target.closest("#paint")) paint();
});

// Shapes stand for width and height.
function shaped(across, down) {
  const [width, height] = ["width", "height"].map((name) => $(`[name="${name}"]`, form));
  const area = 512 * 512 > width.value * height.value ? 512 * 512 : width.value * height.value;
  const side = (share) => String(Math.max(64, Math.round(Math.sqrt(area * share) / 64) * 64));
  width.value = side(across / down);
  height.value = side(down / across);
  for (const input of [width, height]) input.dispatchEvent(new Event("input", { bubbles: true }));
}

// Pictures: chosen, dropped or pasted; each is an upload, and the field holds its link.
let arriving = Promise.resolve();

/** Bring files to the store; what needs them waits for `arriving`. */
function take(drop, files) {
  const brought = bring(drop, files);
  arriving = Promise.allSettled([arriving, brought]);
  return brought;
}

async function bring(drop, files) {
  const many = drop.dataset.many === "yes";
  const { to } = drop.dataset; // of a table of requests
  for (const file of many ? files : files.slice(0, 1)) {
    const field = drop.closest("[data-field]");
    tell(say("uploading", { name: file.name }));
    const answer = await fetch(to ? `${to}&prompts=${/\.txt$/i.test(file.name)}` : "/api/uploads", {
      method: "POST",
      headers: changing({ "Content-Type": (!to && file.type) || "application/octet-stream" }),
      body: file,
    }).catch(() => null);
    const told = await answer?.json().catch(() => ({}));
    if (!answer?.ok) {
      wrong({ [field.dataset.field]: refusal(told ?? {}) }, false);
      continue;
    }
    if (!many) $(".given", drop).replaceChildren();
    $(".given", drop).append(given(told.uri, file.name, told));
    wrong({ [field.dataset.field]: "" }, false);
    tell(say("uploaded", { name: file.name }));
  }
  link(drop);
}

function given(uri, name, told) {
  const item = document.createElement("li");
  item.dataset.link = uri;
  const picture = new Image(48, 48);
  picture.alt = "";
  if (told.rows === undefined) picture.src = `/page/peek?link=${encodeURIComponent(uri)}`;
  const text = document.createElement("span");
  text.textContent = told.width ? `${name} · ${told.width} x ${told.height}` : name;
  const away = document.createElement("button");
  away.type = "button";
  away.className = "button quiet";
  away.dataset.dropAway = "";
  away.setAttribute("aria-label", say("away"));
  away.textContent = "×";
  item.append(...(told.rows === undefined ? [picture] : []), text, away);
  return item;
}

function link(drop) {
  const links = $$("[data-link]", drop).map((item) => item.dataset.link);
  const field = $("input[type=hidden]", drop);
  field.value = drop.dataset.many === "yes" ? (links.length ? JSON.stringify(links) : "") : (links[0] ?? "");
  changed();
}

for (const drop of $$(".drop", form)) {
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", async (event) => {
    drop.classList.remove("over");
    const files = [...event.dataTransfer.files];
    const uri = event.dataTransfer.getData("application/x-safelight");
    if (uri) {
      if (drop.dataset.many !== "yes") $(".given", drop).replaceChildren();
      $(".given", drop).append(given(uri, uri.slice(-14), {}));
      link(drop);
    } else if (files.length) await take(drop, files);
  });
}
addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  const focused = document.activeElement?.closest?.(".drop");
  const pictures = $$(".drop:not([data-to])", form);
  const drop = focused ?? pictures.find((each) => !$("[data-link]", each)) ?? pictures[0];
  if (files.length && drop) take(drop, files);
});

// LoRAs: a list with weights, held as JSON.
function loras(list) {
  const rows = $$("[data-lora]", list).map((row) => ({
    name: row.dataset.lora,
    weight: Number($("input", row).value),
  }));
  $("input[type=hidden]", list).value = rows.length ? JSON.stringify(rows) : "";
}

function addLora(select) {
  const list = select.closest(".loras");
  const row = document.createElement("li");
  row.dataset.lora = select.value;
  const picture = new Image(40, 40);
  picture.alt = "";
  picture.src = `/page/models/lora/${encodeURIComponent(select.value)}/preview`;
  const name = document.createElement("span");
  name.textContent = select.value;
  const weight = Object.assign(document.createElement("input"), { type: "number", value: "1", step: "0.05", min: "-4", max: "4" });
  weight.setAttribute("aria-label", say("weight", { name: select.value }));
  const away = Object.assign(document.createElement("button"), { type: "button", className: "button quiet", textContent: "×" });
  away.dataset.loraAway = "";
  away.setAttribute("aria-label", say("away"));
  row.append(picture, name, weight, away);
  $("ul", list).append(row);
  select.value = "";
  loras(list);
  changed();
}

function peek(select) {
  const picture = select.closest?.(".picker") && $(".peek", select.closest(".picker"));
  const preview = select.selectedOptions?.[0]?.dataset.preview;
  if (!picture) return;
  picture.hidden = !preview;
  if (preview) picture.src = preview;
}
for (const select of $$(".picker select", form)) peek(select);
document.addEventListener("error", (event) => {
  if (event.target instanceof HTMLImageElement && event.target.closest("#form")) event.target.classList.add("gone");
}, true);

async function paint() {
  const { open } = await import("./mask.js");
  await arriving;
  const picture = $('[data-field="image"] [data-link]', form)?.dataset.link;
  if (!picture) {
    wrong({ mask: say("mask_needs_image") }, false);
    return;
  }
  const drop = $("#paint").closest(".drop");
  const before = $("[data-link]", drop)?.dataset.link;
  const painted = await open(picture, before);
  if (painted) await take(drop, [painted]);
}

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
    event.preventDefault();
    draw();
  } else if (event.key === "Escape" && !document.querySelector("dialog[open]") && !typing(event)) stop();
});
document.addEventListener("run-ended", () => look());
document.addEventListener("dragstart", (event) => {
  const src = event.target.closest?.("img[src^='/page/files/'], img[src^='/page/thumbnails/']")?.src;
  if (src) event.dataTransfer.setData("text/uri-list", new URL(src.replace("thumbnails", "files"), location.href).href);
});

const width = $('[data-field="width"]', form);
if (width && $('[data-field="height"]', form)) {
  const shapes = document.createElement("div");
  shapes.className = "shapes";
  shapes.setAttribute("role", "group");
  shapes.setAttribute("aria-label", say("shape"));
  for (const shape of ["1:1", "3:2", "2:3", "16:9", "9:16"]) {
    const chip = Object.assign(document.createElement("button"), { type: "button", className: "chip", textContent: shape });
    chip.dataset.shape = shape;
    shapes.append(chip);
  }
  width.before(shapes); // stands for both numbers below it
}
for (const choice of $$("[data-choice]")) {
  const text = localStorage.getItem(kept(choice.dataset.choice));
  if (text && choice.dataset.choice !== workflow) choice.href = `/create/${choice.dataset.choice}?${text}`;
}
$(".presets [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
if (address.searchParams.has("from")) keep();
if ($("#many")?.open) look(); // how many runs they are
const first = $("textarea", form);
if (first && !first.value && matchMedia("(pointer: fine)").matches) first.focus({ preventScroll: true });
watch();
