// Models and LoRAs chosen by their pictures.
import { $ } from "./frame.js";

const dialog = $("#pick");
let into = null;

function look() {
  const query = new URLSearchParams({ text: $("#pick-words").value });
  return htmx.ajax("GET", `/create/pick/${dialog.dataset.type}?${query}`, { target: "#picks", swap: "innerHTML" });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-pick]");
  if (button) {
    into = $(`#${button.dataset.into}`);
    dialog.dataset.type = button.dataset.pick;
    $("#pick-words").value = "";
    dialog.showModal();
    await look();
  }
  const taken = event.target.closest("[data-take]");
  if (taken && into) {
    into.value = taken.dataset.take;
    dialog.close();
    for (const name of ["input", "change"]) into.dispatchEvent(new Event(name, { bubbles: true }));
    into.focus();
  }
  if (event.target === dialog) dialog.close();
});
let waiting = null;
$("#pick-words").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(look, 200);
});
