// Watches a run being drawn: server-sent events of the gateway move its bar, its words, its picture.
import { $, $$, say, send, spanned, tell, refusal } from "./frame.js";
import { notice, taken } from "./notices.js";

const OVER = ["SUCCEEDED", "FAILED", "CANCELLED"];
const titled = document.title;
let source = null;
let clock = null;

/** Follow the run that stands in #run, until it ends. */
export function watch() {
  leave();
  const canvas = $("#run [data-job]");
  if (!canvas || OVER.includes(canvas.dataset.status)) return;
  source = new EventSource(`/api/jobs/${canvas.dataset.job}/events`);
  source.addEventListener("progress", (event) => progress(canvas, JSON.parse(event.data)));
  source.addEventListener("preview", (event) => preview(event.data));
  source.addEventListener("complete", (event) => ended(canvas.dataset.job, JSON.parse(event.data)));
  source.onerror = () => { $("#lost").hidden = false; };
  source.onopen = () => { $("#lost").hidden = true; };
  clock = setInterval(() => times(canvas), 1000);
  document.title = `● ${titled}`;
}

export function leave() {
  source?.close();
  source = null;
  clearInterval(clock);
  document.title = titled;
}

/** Put a run into #run, whatever was there. */
export async function show(job) {
  await htmx.ajax("GET", `/create/run/${job}`, { target: "#run", swap: "innerHTML" });
  $("#run").dataset.run = job;
  watch();
}

function progress(canvas, told) {
  canvas.dataset.status = told.status;
  $("#stage").textContent = told.stage || told.state;
  if (told.status === "RUNNING") {
    canvas.dataset.started ||= String(Date.now() / 1000);
    const dark = $("#dark");
    if (dark) dark.textContent = say("being_drawn");
  }
  canvas.dataset.percent = told.progress;
  move(told);
  times(canvas);
}

/** Everything before the stage of now is done; its own part is filled as far as it says. */
function move(told) {
  const groups = $$("#run .stages g");
  const name = (told.stage ?? "").split(":")[0].trim();
  const at = groups.findIndex((group) => group.dataset.stage && group.dataset.stage === name);
  const step = /(\d+) of (\d+)/.exec(told.stage ?? "");
  const share = step ? step[1] / Math.max(1, step[2]) : 0;
  if (at < 0) {
    if (groups.length === 1) fill(groups[0], "now", told.progress / 100);
    return;
  }
  groups.forEach((group, number) => {
    if (number < at) fill(group, group.classList.contains("cached") ? "cached" : "done", 1);
    else if (number === at) fill(group, "now", share);
  });
}

function fill(group, look, share) {
  group.setAttribute("class", look);
  $(".part", group).setAttribute("width", group.dataset.width * share);
}

function times(canvas) {
  const started = Number(canvas.dataset.started);
  if (!started) return;
  const gone = Math.max(0, Date.now() / 1000 - started);
  const percent = Number(canvas.dataset.percent || 0);
  const expected = percent > 5 ? (gone / percent) * 100 : Number(canvas.dataset.expected);
  const left = expected ? Math.max(0, expected - gone) : null;
  $("#left").textContent = left === null
    ? say("gone", { gone: spanned(gone) })
    : say("gone_left", { gone: spanned(gone), left: spanned(left) });
}

/** A small picture of what is being drawn: a data: URI, alone or as a field of JSON. */
function preview(data) {
  let uri = data;
  if (data.startsWith("{")) {
    const told = JSON.parse(data);
    uri = told.picture ?? "";
  }
  if (!/^data:image\/(jpeg|webp|png);base64,/.test(uri)) return;
  const picture = $("#preview");
  if (!picture) return;
  picture.src = uri;
  picture.hidden = false;
  $("#dark").hidden = true;
}

async function ended(job, told) {
  const { name } = $("#run [data-job]")?.dataset ?? {};
  leave();
  await htmx.ajax("GET", `/create/run/${job}`, { target: "#run", swap: "innerHTML" });
  taken(job); // not before it is told: whoever goes elsewhere meanwhile is told there
  const picture = $("#run #picture")?.src;
  notice(job, `${say(`ended.${told.status}`)}${name ? `: ${name}` : ""}`, { picture, address: `/jobs?job=${job}` });
  document.dispatchEvent(new CustomEvent("run-ended", { detail: told }));
}

export async function stop() {
  const button = $("#stop");
  if (!button || button.disabled) return;
  button.disabled = true;
  const { ok, told } = await send(button.dataset.url, { reason: "" });
  if (!ok) {
    button.disabled = false;
    tell(refusal(told));
  } else tell(say("stopping"));
}

document.addEventListener("click", (event) => { if (event.target.closest("#stop")) stop(); });
document.body.addEventListener("htmx:afterSwap", (event) => { if (event.detail.target.id === "run") watch(); });
