// What people think of files: stars by keys and buttons, shown wherever the file stands.
import { $$, refusal, say, send, tell } from "./frame.js";

let turn = Promise.resolve();

/** Send what somebody thinks of a file; one after the other, in the order of the presses. */
export function judge(sha256, opinion) {
  turn = turn.then(async () => {
    const { ok, told } = await send(`/gallery/${sha256}/judge`, opinion).catch(() => ({ ok: false, told: {} }));
    if (!ok) return tell(refusal(told));
    show(told);
    tell("rating" in opinion ? say(`rated.${told.rating}`) : say(told.star ? "kept" : "let_go"));
    return told;
  });
  return turn;
}

/** Marks of a file, wherever it is on the page; nothing is swapped, so the focus stays. */
export function show({ sha256, rating, star }) {
  for (const tile of $$(`[data-row="${sha256}"]`)) {
    tile.dataset.rating = rating;
    tile.dataset.star = star ? "yes" : "";
    for (const place of $$("[data-rated]", tile)) place.textContent = rating ? say(`rated.${rating}`) : "";
  }
  for (const button of $$(`[data-rater="${sha256}"] [data-rate]`)) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.rate) === rating));
  }
}

/** The rating that a key stands for; null of other keys. */
export function ratingOf(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  if (event.key.toLowerCase() === "x") return -1;
  return /^[0-5]$/.test(event.key) ? Number(event.key) : null;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-rate]");
  if (!button) return;
  const again = button.getAttribute("aria-pressed") === "true";
  judge(button.closest("[data-rater]").dataset.rater, { rating: again ? 0 : Number(button.dataset.rate) });
});
