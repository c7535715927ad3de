// Says once that a batch is over: its page follows it and knows.
import { $, say } from "./frame.js";
import { notice, taken } from "./notices.js";

const live = $("#tick")?.dataset.live === "yes";
const { batch, name } = $("#tick")?.dataset ?? {};
const kept = `batch.${batch}`;
if (live) sessionStorage.setItem(kept, "followed");
else if (batch && sessionStorage.getItem(kept)) {
  sessionStorage.removeItem(kept);
  taken(batch);
  const status = $("#tick").dataset.status;
  const picture = $(".cell img")?.src;
  notice(batch, `${say(`ended.${status}`)}: ${name}`, { picture, address: `/batches/${batch}` });
}
