/** Whether an attempt may be given up: over the memory transport, with a coordinator that nobody reads for. */
import { CompleteStep } from "@taskmesh/proto";
import { createLogger, MemoryBus, type WorkTransport } from "@taskmesh/runtime";
import { beforeEach, expect, it } from "vitest";
import { waitFor } from "../../../test/fixtures/process.js";
import { createHeard, type Heard } from "./heard.js";

const log = createLogger("test", { level: "silent" });
const attempts = [{ lease: "a" }, { lease: "b" }];
let bus: MemoryBus;
let work: WorkTransport;
let heard: Heard;
let nowMs = 0;
const options = { coordinators: async () => ["live", "dead"], log, waitMs: 0, nowMs: () => nowMs };

beforeEach(async () => {
  bus = new MemoryBus();
  work = bus.work({ namespaceId: 1, sessionId: "s" });
  await work.open([], { onStart() {}, onProbe() {}, onClosed() {} });
  nowMs = 0;
  heard = createHeard({ ...options, carrier: bus.carrier("live") });
});

const complete = (to: string): Promise<void> =>
  new Promise((resolve, reject) =>
    work.complete(to, CompleteStep.fromPartial({ runId: "r", lease: "a" }), (error) =>
      error ? reject(error) : resolve(),
    ),
  );

it("gives up at once what nobody can have reported", async () => {
  expect(await heard.settled(attempts)).toEqual(attempts);
  expect(await heard.settled([])).toEqual([]);
});

it("waits for what is addressed to a coordinator that died, until it is read; not for what came later", async () => {
  await complete("dead");
  expect(await heard.settled(attempts)).toEqual([]);
  const survivor = bus.carrier("live");
  const acks: (() => void)[] = [];
  await survivor.start({ onCompletions: (delivery) => acks.push(() => delivery.ack()), onWiped() {} });
  await survivor.adopt("dead");
  await waitFor("the delivery", () => acks.length === 1);
  expect(await heard.settled(attempts), "in hand is not committed").toEqual([]);
  acks[0]!();
  await complete("dead");
  await waitFor("the later one", () => acks.length === 2);
  expect(await heard.settled(attempts)).toEqual(attempts);
});

it("gives up in the end what is never read, and when the carrier can't say", async () => {
  await complete("dead");
  expect(await heard.settled(attempts)).toEqual([]);
  nowMs = 60_000;
  expect(await heard.settled(attempts)).toEqual(attempts);
  const silent = createHeard({ ...options, carrier: { completionsRead: () => Promise.reject(new Error("away")) } });
  expect(await silent.settled(attempts)).toEqual([]);
  nowMs = 120_000;
  expect(await silent.settled(attempts)).toEqual(attempts);
});

it("forgets what a wiped carrier held", async () => {
  await complete("dead");
  expect(await heard.settled(attempts)).toEqual([]);
  bus.wipe();
  expect(await heard.settled(attempts)).toEqual(attempts);
});

it("catches up with what waits for one coordinator, within its patience", async () => {
  await complete("dead");
  const over = new AbortController();
  let caught = false;
  const catching = heard.caughtUp("dead", 30_000, over.signal).then(() => {
    caught = true;
  });
  await heard.caughtUp("live", 30_000, over.signal);
  await heard.caughtUp("dead", 60, over.signal);
  expect(caught).toBe(false);
  const survivor = bus.carrier("live");
  await survivor.start({ onCompletions: (delivery) => delivery.ack(), onWiped() {} });
  await survivor.adopt("dead");
  await catching;
});
