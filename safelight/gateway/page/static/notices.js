// Tells that work is done: in the title while the tab is away, and by the system where somebody asked for it.
import { $, say, tell } from "./frame.js";

const ASKED = "notices";
const wanted = () => "Notification" in window && localStorage.getItem(ASKED) === "yes" && Notification.permission === "granted";
const button = $("#notices");

function shown() {
  if (!button) return;
  button.hidden = !("Notification" in window);
  button.setAttribute("aria-pressed", String(wanted()));
}

// Asked for by a press, never by itself.
button?.addEventListener("click", async () => {
  if (wanted()) localStorage.removeItem(ASKED);
  else if ((await Notification.requestPermission()) === "granted") localStorage.setItem(ASKED, "yes");
  else tell(say("notices.denied"));
  if (wanted()) tell(say("notices.on"));
  shown();
});
shown();

// What was begun in this browser and has not ended: looked after from every room, said by one tab.
const BEGUN = "begun";
const OVER = ["SUCCEEDED", "FAILED", "CANCELLED"];
const MOST = 20;
const begun = () => JSON.parse(localStorage.getItem(BEGUN) ?? "[]");
const keep = (those) => localStorage.setItem(BEGUN, JSON.stringify(those.slice(-MOST)));

/** Tell of the end of a job, wherever the person has gone until then. */
export function lookAfter(id, address) {
  keep([...begun().filter((one) => one.id !== id), { id, address }]);
}

/** Whether nobody has told of it yet; whoever asks tells. */
export function taken(id) {
  const those = begun();
  keep(those.filter((one) => one.id !== id));
  return those.some((one) => one.id === id);
}

async function look() {
  const shown = [$("#run [data-job]")?.dataset.job, $("#tick")?.dataset.batch];
  for (const { id, address } of begun()) {
    if (shown.includes(id)) continue; // its own page tells
    const answer = await fetch(`/api/jobs/${id}`).catch(() => null);
    const told = answer?.ok ? await answer.json() : null;
    if (answer?.status === 404) taken(id);
    if (!told || !OVER.includes(told.status) || !taken(id)) continue;
    notice(id, `${say(`ended.${told.status}`)}: ${told.name}`, { address });
  }
}
document.body.addEventListener("htmx:afterRequest", ({ detail }) => { if (detail.target?.id === "now") look(); });

let away = "";
const titled = document.title;

/** Say that something has ended; once for each, whatever the number of tabs. */
export function notice(id, text, { picture = "", address = "" } = {}) {
  tell(text);
  if (!document.hidden) return;
  away = text;
  document.title = `${text} · ${titled}`;
  if (!wanted()) return;
  const told = new Notification(say("notices.title"), { body: text, tag: id, ...(picture ? { icon: picture } : {}) });
  told.onclick = () => {
    focus();
    if (address && location.pathname + location.search !== address) location.href = address;
    told.close();
  };
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !away) return;
  away = "";
  document.title = titled;
});
