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
