// Adds reference pictures to a character: each is a body of its own, checked before it is kept.
import { $, changing, refusal, say, tell } from "./frame.js";

document.addEventListener("change", async (event) => {
  const input = event.target;
  if (input.id !== "add-reference") return;
  const { character, kind } = input.dataset;
  const consent = $("#add-consent")?.checked ?? false;
  for (const file of input.files) {
    tell(say("uploading", { name: file.name }));
    const answer = await fetch(`/api/characters/${character}/images${kind === "person" ? `?consent_given=${consent}` : ""}`, {
      method: "POST",
      headers: changing({ "Content-Type": file.type || "application/octet-stream" }),
      body: file,
    }).catch(() => null);
    if (!answer?.ok) {
      $("#add-why").textContent = `${file.name}: ${refusal((await answer?.json().catch(() => null)) ?? {})}`;
      return;
    }
  }
  htmx.ajax("GET", `/people/${character}/drawer`, { target: "#drawer", swap: "innerHTML" });
});
// What was left empty is left out.
document.body.addEventListener("htmx:configRequest", (event) => {
  if (event.target.id !== "new-person") return;
  const { parameters } = event.detail;
  for (const name of Object.keys(parameters)) if (parameters[name] === "") delete parameters[name];
});
