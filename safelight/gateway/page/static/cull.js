// Culling: one picture after the other, by keys.
import { $, typing } from "./frame.js";
import { judge, ratingOf, show } from "./judging.js";

const shown = () => $(".cull[data-at]");

/** Show the picture before or after this one; the address goes with it. */
let going = Promise.resolve();
function go(way) {
  going = going.then(async () => {
    const next = shown()?.dataset[way];
    if (!next) return;
    const query = new URLSearchParams({ q: shown().dataset.q, at: next });
    await htmx.ajax("GET", `/gallery/cull/part?${query}`, { target: "#culled", swap: "innerHTML" });
    history.replaceState(null, "", `/gallery/cull?${query}`);
    ahead();
  });
  return going;
}

/** The next picture is on its way before anybody asks for it. */
function ahead() {
  const next = shown()?.dataset.after;
  if (next) new Image().src = `/page/files/${next}`;
}

/** Keys that come while a picture is being swapped belong to the one that comes. */
function verdict(opinion, on) {
  going = going.then(async () => {
    const sha256 = shown()?.dataset.at;
    if (!sha256) return;
    const told = await judge(sha256, opinion);
    if (told) show(told);
  });
  return on ? go("after") : going;
}

const KEYS = { j: "after", arrowright: "after", k: "before", arrowleft: "before" };
document.addEventListener("keydown", (event) => {
  if (typing(event) || !shown()) return;
  const key = event.key.toLowerCase();
  const rating = ratingOf(event);
  if (rating === -1) verdict({ rating: -1, star: false }, true);
  else if (rating === 0) verdict({ rating: 0, star: false }, false);
  else if (rating !== null) verdict({ rating }, false);
  else if (key === "s" && !event.ctrlKey && !event.metaKey) verdict({ star: true, rating: 0 }, true);
  else if (key in KEYS && !event.ctrlKey && !event.metaKey) go(KEYS[key]);
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);
document.addEventListener("click", (event) => {
  const way = event.target.closest("[data-go]")?.dataset.go;
  if (way) go(way);
  const said = event.target.closest("[data-verdict]")?.dataset.verdict;
  if (said === "keep") verdict({ star: true }, true);
  if (said === "clear") verdict({ rating: 0, star: false }, false);
});
ahead();
