// What all rooms share: requests, the finder, keys, theme, what is said aloud.
import words from "./words.js";

export const $ = (selector, within = document) => within.querySelector(selector);
export const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

/** A text of the page with its places filled in. */
export function say(key, places = {}) {
  return (words[`live.${key}`] ?? key).replace(/\{(\w+)\}/g, (whole, name) => places[name] ?? whole);
}

/** Say something to everybody: on the screen for a moment, and aloud. */
export function tell(text) {
  const said = $("#said");
  said.textContent = text;
  said.classList.add("shown");
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => said.classList.remove("shown"), 6000);
}

/** The headers of whatever changes something; the sign-in's token goes with each. */
export function changing(headers = {}) {
  const token = $("meta[name=csrf]").content;
  return token ? { ...headers, "X-CSRF-Token": token } : headers;
}

/** Send JSON and get JSON, with the status. */
export async function send(path, body, headers = {}) {
  const answer = await fetch(path, {
    method: "POST",
    headers: changing({ "Content-Type": "application/json", ...headers }),
    body: JSON.stringify(body),
  });
  const told = await answer.json().catch(() => ({}));
  return { ok: answer.ok, status: answer.status, told };
}

/** What an answer that refuses says to people. */
export function refusal(told) {
  return told.message ? `${told.message}. ${(told.remediation ?? []).join("; ")}` : say("lost");
}

export function spanned(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

htmx.defineExtension("json", {
  onEvent(name, event) {
    if (name !== "htmx:configRequest") return;
    if (event.detail.verb === "get") return;
    event.detail.headers["Content-Type"] = "application/json";
    Object.assign(event.detail.headers, changing());
  },
  encodeParameters(xhr, parameters) {
    xhr.overrideMimeType("text/html");
    return JSON.stringify(Object.fromEntries(parameters.entries()));
  },
});

// A lost connection is said in the top line, and heals by itself.
const lost = (away) => { $("#lost").hidden = !away; };
document.body.addEventListener("htmx:sendError", () => lost(true));
document.body.addEventListener("htmx:afterOnLoad", () => lost(false));

$("#theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  if ((next === "dark") === dark) { // what the system has: it is followed again
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("theme");
    return;
  }
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
});

const finder = $("#finder");
export function find() {
  finder.showModal();
  $("#finder-words").select();
}
$("#find").addEventListener("click", find);
finder.addEventListener("click", (event) => { if (event.target === finder) finder.close(); });
finder.addEventListener("keydown", (event) => {
  const links = $$("a", finder);
  const at = links.indexOf(document.activeElement);
  if (event.key === "ArrowDown") (links[at + 1] ?? links[0])?.focus();
  else if (event.key === "ArrowUp") (links[at - 1] ?? $("#finder-words")).focus();
  else if (event.key === "Enter" && event.target.id === "finder-words") links[0]?.click();
  else return;
  event.preventDefault();
});

export const typing = (event) =>
  event.target.closest?.("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, dialog[open]");

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    find();
  } else if (event.key === "?" && !typing(event)) {
    $("#keys").showModal();
  } else if ((event.key === "j" || event.key === "k") && !typing(event) && !event.ctrlKey) {
    const rows = $$("[data-row]");
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    const next = rows[event.key === "j" ? at + 1 : at - 1];
    (next?.matches("a, button") ? next : $("a, button", next ?? document.createElement("i")))?.focus();
    next?.scrollIntoView({ block: "nearest" });
  }
});
$("#keys").addEventListener("click", (event) => { if (event.target.id === "keys") event.target.close(); });

// A file that is dropped beside its target must not take the place of the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());

// The row whose drawer is open is marked; the list stays as it is.
document.body.addEventListener("htmx:afterRequest", (event) => {
  const row = event.target.closest?.("[data-row]");
  if (!row || event.detail.target?.id !== "drawer") return;
  for (const other of $$("[data-row][aria-current]")) other.removeAttribute("aria-current");
  row.setAttribute("aria-current", "true");
  if (matchMedia("(max-width: 820px)").matches) $("#drawer")?.scrollIntoView({ behavior: "smooth" });
});

// Drawers: closed by their button or Esc; the row of an open one stays marked when its table is new.
function mark() {
  const open = $("#drawer [data-of]")?.dataset.of;
  for (const row of $$("[data-row]")) {
    if (row.dataset.row === open) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}
export function closeDrawer() {
  const open = $("#drawer [data-of]")?.dataset.of;
  if (!open) return false;
  $("#drawer").replaceChildren();
  mark();
  const address = new URL(location.href);
  for (const name of ["job", "file", "name"]) address.searchParams.delete(name);
  history.replaceState(null, "", address);
  const row = $(`[data-row="${CSS.escape(open)}"]`);
  (row?.matches("a") ? row : $("a", row ?? document.body))?.focus();
  return true;
}
document.addEventListener("click", (event) => { if (event.target.closest("[data-close]")) closeDrawer(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("dialog[open]") && !typing(event)) closeDrawer();
});
document.body.addEventListener("htmx:afterSettle", mark);
// What changes while somebody reads it must not lose what was unfolded, nor the focus.
let unfolded = null;
const summaries = (drawer) => $$("details > summary", drawer);
document.body.addEventListener("htmx:beforeRequest", (event) => {
  const drawer = event.target.closest?.(".drawer");
  if (drawer !== event.target) return;
  const focused = document.activeElement;
  if (drawer.contains(focused) && !focused.matches("summary")) event.preventDefault();
});
document.body.addEventListener("htmx:beforeSwap", (event) => {
  const drawer = event.detail.target;
  if (!drawer.matches?.(".drawer")) return;
  const all = summaries(drawer);
  unfolded = { of: drawer.dataset.of, open: all.map((each) => each.parentElement.open), inside: all.map((each) => each.nextElementSibling?.innerHTML ?? ""), focused: all.indexOf(document.activeElement) };
});
document.body.addEventListener("htmx:afterSettle", () => {
  const drawer = $("#drawer .drawer");
  if (!unfolded || drawer?.dataset.of !== unfolded.of) return;
  const { open, inside, focused } = unfolded;
  unfolded = null;
  summaries(drawer).forEach((each, at) => {
    if (!open[at]) return;
    const place = each.nextElementSibling;
    if (place && !place.childElementCount) place.innerHTML = inside[at]; // until the new one has come
    each.parentElement.open = true;
  });
  summaries(drawer)[focused]?.focus({ preventScroll: true });
});
document.addEventListener("change", ({ target }) => {
  if (!target.matches("[data-submits]")) return;
  const other = target.dataset.other && $(`#${target.dataset.other}`);
  if (other && other.value === target.value) other.value = target.dataset.was; // two axes change places
  target.form.requestSubmit();
});
mark();
