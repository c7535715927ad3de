// The wall: only pages near the window exist; comparing, keeping, dragging out, keys.
import { $, $$, closeDrawer, say, tell, typing } from "./frame.js";
import { judge, ratingOf, show } from "./judging.js";

// A page of the wall that is far away becomes a box of its height, and is asked for again when it is near.
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.dataset.near = isIntersecting ? "yes" : "";
    if (isIntersecting && !target.childElementCount) back(target);
    else if (!isIntersecting && target.childElementCount && target.offsetHeight) {
      target.style.height = `${target.offsetHeight}px`;
      // a picture that still waits to be loaded would keep the whole page of the wall in memory
      for (const picture of $$("img", target)) picture.removeAttribute("src");
      target.replaceChildren();
    }
  }
}, { rootMargin: "2500px 0px" });

async function back(page) {
  const answer = await fetch(page.dataset.page, { headers: { "HX-Request": "true" } }).catch(() => null);
  if (!answer?.ok || !page.dataset.near || page.childElementCount) return;
  const told = new DOMParser().parseFromString(await answer.text(), "text/html");
  page.replaceChildren(...($("[data-page]", told)?.childNodes ?? []));
  page.style.height = "";
  htmx.process(page);
}

function watchPages() {
  for (const page of $$("[data-page]:not([data-watched])")) {
    page.dataset.watched = "";
    near.observe(page);
  }
}
document.body.addEventListener("htmx:afterSettle", watchPages);
watchPages();

// The words of a search stand in the address; the count follows.
document.body.addEventListener("htmx:afterRequest", (event) => {
  if (event.target.id !== "q") return;
  const shown = new URLSearchParams(new FormData($("#search")));
  if (!shown.get("q")) shown.delete("q");
  history.replaceState(null, "", `/gallery${shown.size ? `?${shown}` : ""}`);
  $("#cull").href = `/gallery/cull?${new URLSearchParams({ q: $("#q").value })}`;
});

// Saved searches are chips of this browser.
const saved = () => JSON.parse(localStorage.getItem("searches") ?? "[]");
function chips() {
  for (const old of $$("#chips [data-own]")) old.remove();
  for (const words of saved()) {
    const chip = Object.assign(document.createElement("a"), { className: "chip", textContent: words });
    chip.href = `/gallery?q=${encodeURIComponent(words)}`;
    chip.dataset.own = "";
    $("#chips").append(chip);
  }
}
$("#save-search").addEventListener("click", () => {
  const words = $("#q").value.trim();
  if (!words) return;
  const all = saved();
  localStorage.setItem("searches", JSON.stringify(all.includes(words) ? all.filter((each) => each !== words) : [...all, words]));
  chips();
});
chips();

// Compare: a slider, or blinking.
document.addEventListener("input", (event) => {
  if (!event.target.matches("[data-knife]")) return;
  $("[data-compare]").style.setProperty("--at", `${event.target.value}%`);
});
let blinking = null;
function blink(button) {
  const compare = $("[data-compare]");
  clearInterval(blinking);
  const on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(on));
  compare.classList.toggle("blink", on);
  compare.classList.remove("off");
  if (on) blinking = setInterval(() => compare.isConnected ? compare.classList.toggle("off") : clearInterval(blinking), 600);
}
let marked = null;
function mark(sha256) {
  if (marked && marked !== sha256) {
    htmx.ajax("GET", `/gallery/compare?a=${marked}&b=${sha256}`, { target: "#drawer", swap: "innerHTML" });
    for (const tile of $$("[aria-selected]")) tile.removeAttribute("aria-selected");
    marked = null;
    return;
  }
  marked = sha256;
  $(`[data-row="${sha256}"]`)?.setAttribute("aria-selected", "true");
  tell(say("marked"));
}
// A stack opens into the pictures that it stands for.
document.addEventListener("click", (event) => {
  const stack = event.target.closest("[data-stack]");
  if (!stack) return;
  event.preventDefault();
  event.stopPropagation();
  location.href = `/gallery?q=${encodeURIComponent(`stack:${stack.dataset.stack}`)}`;
}, true);
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-blink], [data-mark], [data-copy]");
  if (!button) return;
  if ("blink" in button.dataset) blink(button);
  if (button.dataset.mark) mark(button.dataset.mark);
  if (button.dataset.copy) {
    await navigator.clipboard.writeText(button.dataset.copy);
    tell(say("copied"));
  }
});
function settle() {
  const range = $("[data-knife]");
  if (range) $("[data-compare]").style.setProperty("--at", `${range.value}%`);
  const open = $("#drawer [data-of][data-kept]");
  const pressed = open && $("[data-rate][aria-pressed=true]", open);
  if (open) show({ sha256: open.dataset.of, star: open.dataset.kept === "yes", rating: Number(pressed?.dataset.rate ?? 0) });
  const gone = $("[data-deleted]")?.dataset.deleted;
  if (gone) $(`[data-row="${gone}"]`)?.remove();
}
document.body.addEventListener("htmx:afterSettle", settle);
settle();
document.body.addEventListener("htmx:configRequest", (event) => {
  const { star } = event.target.dataset ?? {};
  if (star) event.detail.parameters.star = star;
});
document.body.addEventListener("htmx:afterRequest", (event) => {
  const row = event.target.closest?.("a[data-row]");
  if (!row || event.detail.target?.id !== "drawer") return;
  const address = new URL(location.href);
  address.searchParams.set("file", row.dataset.row);
  history.replaceState(null, "", address);
});

// Drag out: the file itself for other programs, its link for our forms.
document.addEventListener("dragstart", (event) => {
  const from = event.target.closest?.("[data-uri]");
  if (!from) return;
  const sha256 = from.dataset.row ?? from.dataset.of;
  const url = new URL(`/page/files/${sha256}`, location.href).href;
  event.dataTransfer.setData("text/uri-list", url);
  event.dataTransfer.setData("application/x-safelight", from.dataset.uri);
  if (from.dataset.type) event.dataTransfer.setData("DownloadURL", `${from.dataset.type}:${sha256.slice(0, 12)}:${url}`);
});

// Keys mean the picture that has the focus, else the one that had it last: a wall that was swapped takes the focus along.
let current = null;
document.addEventListener("focusin", (event) => {
  const row = event.target.closest?.("a[data-row]");
  if (row) current = row.dataset.row;
});
document.body.addEventListener("htmx:afterSettle", () => {
  if (document.activeElement !== document.body || !current) return;
  $(`a[data-row="${current}"]`)?.focus({ preventScroll: true });
});

document.addEventListener("keydown", (event) => {
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
  const focused = document.activeElement?.closest?.("a[data-row]");
  const open = $("#drawer [data-of]")?.dataset.of;
  const lost = document.activeElement === document.body && current ? $(`a[data-row="${current}"]`) : null;
  const tile = focused ?? (open ? null : lost);
  const key = event.key.toLowerCase();
  const rating = ratingOf(event);
  const meant = tile?.dataset.row ?? open;
  if (rating !== null && meant) {
    judge(meant, { rating });
    event.preventDefault();
    return;
  }
  if (key === "i" && tile) tile.click();
  else if (key === "c" && (tile ?? open)) mark(tile?.dataset.row ?? open);
  else if (key === "s" && tile && tile.dataset.row !== open) judge(tile.dataset.row, { star: tile.dataset.star !== "yes" });
  else if (key === "s" && open) $("#star")?.click();
  else return;
  event.preventDefault();
});
export { closeDrawer };
