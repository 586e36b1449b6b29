/**
 * The floor: the least durable work for chain5, or for one call (FLOOR_STEPS=1), with no engine. A step is one start message and one completion message (each published with a
 * PubAck, pulled, acked), and one result row, group-committed before the next start goes out.
 */
import postgres from "postgres";
import { pad, serveAsks, stepsPerRun } from "./load.js";
import { createPublisher, openNats, pull } from "./thin-nats.js";

interface Done {
  id: number;
  step: number;
  out: { counter: number };
}

const rowsMax = 500;
const steps = Number(process.env["FLOOR_STEPS"] ?? stepsPerRun);
const nc = await openNats(process.env["NATS_URL"] ?? "");
const sql = postgres(process.env["DATABASE_URL"] ?? "", { max: 1, onnotice: () => {} });
await sql`select 1`;
const publish = createPublisher(nc);
const encoder = new TextEncoder();
const decoder = new TextDecoder();
const runs = new Map<number, (counter: number) => void>();
const pending: { done: Done; ack: () => void }[] = [];
let busy = false;
let scheduled = false;

const start = (message: unknown): void => publish("floor.s.x", encoder.encode(JSON.stringify(message)), () => {});

async function flush(): Promise<void> {
  scheduled = false;
  if (busy) return;
  busy = true;
  while (pending.length > 0) {
    const batch = pending.splice(0, rowsMax);
    const ids = batch.map(({ done }) => done.id);
    const numbers = batch.map(({ done }) => done.step);
    const outs = batch.map(({ done }) => JSON.stringify(done.out));
    await sql`insert into floor_results (run, step, out) select * from unnest(${ids}::bigint[], ${numbers}::int[], ${outs}::text[])`;
    for (const { done, ack } of batch) {
      if (done.step === steps) {
        runs.get(done.id)?.(done.out.counter);
        runs.delete(done.id);
      } else start({ id: done.id, step: done.step + 1, in: done.out });
      ack();
    }
  }
  busy = false;
}

pull(nc, "FLOOR_DONE", "c", 256, (data, ack) => {
  pending.push({ done: JSON.parse(decoder.decode(data)) as Done, ack });
  if (busy || scheduled) return;
  scheduled = true;
  setImmediate(flush);
});

serveAsks(async (i) => {
  const counter = await new Promise<number>((resolve) => {
    runs.set(i, resolve);
    start({ id: i, step: 1, in: { counter: 0, run: i, pad } });
  });
  return counter === steps;
});
