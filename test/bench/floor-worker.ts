/** The floor's worker: raises the counter. A start is acked when its completion is stored. */
import { createPublisher, openNats, pull } from "./thin-nats.js";

const nc = await openNats(process.env["NATS_URL"] ?? "");
const publish = createPublisher(nc);
const encoder = new TextEncoder();
const decoder = new TextDecoder();

pull(nc, "FLOOR_START", "w", 256, (data, ack) => {
  const {
    id,
    step,
    in: input,
  } = JSON.parse(decoder.decode(data)) as { id: number; step: number; in: { counter: number } };
  const done = { id, step, out: { ...input, counter: input.counter + 1 } };
  publish("floor.d.x", encoder.encode(JSON.stringify(done)), ack);
});
process.on("disconnect", () => process.exit(0));
process.send?.("ready");
