/** Event streams: gapless through dying coordinators, bounded for slow readers, over when the run is. */
import type { Gateway } from "@taskmesh/gateway";
import { EventKind, RunStatus } from "@taskmesh/proto";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  echoMethod,
  payloadOf,
  type ScriptedCoordinator,
  ScriptedState,
  startScriptedCoordinator,
} from "../fixtures/rest-coordinator.js";
import { ask, type EventReader, readEvents, startTestGateway } from "../fixtures/rest-gateway.js";

let state: ScriptedState;
let coordinators: ScriptedCoordinator[];
let gateway: Gateway;
let readers: EventReader[];
beforeEach(async () => {
  state = new ScriptedState();
  state.autoEnd = false;
  coordinators = await Promise.all([startScriptedCoordinator(state), startScriptedCoordinator(state)]);
  gateway = await startTestGateway(coordinators.map(({ port }) => port));
  readers = [];
});
afterEach(async () => {
  for (const reader of readers) reader.close();
  await gateway.stop();
  for (const coordinator of coordinators) coordinator.kill();
});

async function startRun(): Promise<string> {
  const { json } = await ask(gateway, "/api/v1/runs", { body: { method: echoMethod, input: { text: "x" } } });
  return json.runId;
}

async function watch(runId: string, headers: Record<string, string> = {}): Promise<EventReader> {
  const reader = await readEvents(gateway, `/api/v1/runs/${runId}/events`, headers);
  readers.push(reader);
  return reader;
}

const step = (stepId: string) => ({ kind: EventKind.EVENT_KIND_STEP_READY, stepId });
const ids = (reader: EventReader) => reader.events.map(({ id }) => Number(id));
const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

/** The value once it has not changed for half a second. */
async function standstill(read: () => number): Promise<number> {
  let value = read();
  for (let same = 0; same < 20; same++) {
    await new Promise((resolve) => setTimeout(resolve, 25));
    if (read() !== value) same = 0;
    value = read();
  }
  return value;
}

describe("event stream", () => {
  it("tells events as they happen, with payloads as JSON, and ends with the run", async () => {
    const runId = await startRun();
    const reader = await watch(runId);
    await reader.until(1);
    expect(reader.events[0]).toMatchObject({
      id: "1",
      data: { seq: "1", kind: "EVENT_KIND_RUN_ACCEPTED", payload: { text: "x" } },
    });
    state.add(runId, step("a"));
    await reader.until(2);
    state.end(runId, RunStatus.RUN_STATUS_SUCCEEDED, payloadOf(Buffer.from([0x0a, 1, 0x79])));
    await reader.ended;
    expect(reader.events.at(-1)?.data).toMatchObject({
      kind: "EVENT_KIND_RUN_ENDED",
      runStatus: "RUN_STATUS_SUCCEEDED",
      payload: { text: "y" },
    });
    expect(ids(reader)).toEqual([1, 2, 3]);
  });

  it("goes on without gap or repeat while coordinators die under it, one after another", async () => {
    const runId = await startRun();
    const reader = await watch(runId);
    let streams = 0;
    for (let round = 0; round < 4; round++) {
      for (let n = 0; n < 25; n++) state.add(runId, step(`s${round}-${n}`));
      await reader.until(state.runs.get(runId)!.events.length);
      // Whichever has served the stream is killed and comes back at its address.
      const victim = coordinators.findIndex(({ calls }) => calls.has("watchRun"));
      streams += coordinators[victim]!.calls.get("watchRun")!;
      coordinators[victim]!.kill();
      state.add(runId, step(`while-${round}`));
      coordinators[victim] = await startScriptedCoordinator(state, coordinators[victim]!.port);
    }
    state.end(runId, RunStatus.RUN_STATUS_SUCCEEDED);
    await reader.ended;
    expect(ids(reader)).toEqual(upTo(106));
    expect(streams).toBeGreaterThan(1);
  });

  it("goes on when the only coordinator is away for a while", async () => {
    await gateway.stop();
    const [only] = coordinators;
    gateway = await startTestGateway([only!.port]);
    const runId = await startRun();
    const reader = await watch(runId);
    await reader.until(1);
    only!.kill();
    state.add(runId, step("a"));
    coordinators[0] = await startScriptedCoordinator(state, only!.port);
    await reader.until(2);
    state.end(runId, RunStatus.RUN_STATUS_CANCELLED);
    await reader.ended;
    expect(ids(reader)).toEqual([1, 2, 3]);
  });

  it("goes on behind Last-Event-ID, and answers 204 when there is nothing more", async () => {
    const runId = await startRun();
    for (let n = 0; n < 5; n++) state.add(runId, step(`s${n}`));
    const first = await watch(runId, { "last-event-id": "4" });
    await first.until(2);
    expect(ids(first)).toEqual([5, 6]);
    first.close();
    state.end(runId, RunStatus.RUN_STATUS_SUCCEEDED);
    const rest = await watch(runId, { "last-event-id": "6" });
    await rest.ended;
    expect(ids(rest)).toEqual([7]);
    expect((await watch(runId, { "last-event-id": "7" })).status).toBe(204);
  });

  it.each([
    ["repeats events", (events: unknown[]) => [...events, ...events]],
    ["skips one", (events: unknown[]) => events.filter((_, index) => index !== 1)],
    ["reorders them", (events: unknown[]) => [...events].reverse()],
  ])("stays gapless when a coordinator %s", async (_, garble) => {
    const runId = await startRun();
    for (let n = 0; n < 9; n++) state.add(runId, step(`s${n}`));
    for (const coordinator of coordinators) coordinator.garble = garble as typeof coordinator.garble;
    state.end(runId, RunStatus.RUN_STATUS_SUCCEEDED);
    const reader = await watch(runId);
    await reader.ended;
    expect(ids(reader)).toEqual(upTo(11));
  });

  it("holds a slow reader's events back at the coordinator, and loses none", async () => {
    const runId = await startRun();
    const reader = await watch(runId);
    await reader.until(1);
    reader.pause();
    const message = "m".repeat(64 * 1024);
    const failure = { reason: "LARGE", message, retryable: true, details: [], cause: undefined };
    const shown = { ...step("a"), kind: EventKind.EVENT_KIND_ATTEMPT_FAILED, failure };
    for (let n = 0; n < 1_000; n++) state.add(runId, shown);
    // 64 MiB wait. What the windows and sockets on the way hold is a part of that; then the stream stands still.
    expect(await standstill(() => coordinators.reduce((sum, { eventsSent }) => sum + eventsSent, 0))).toBeLessThan(500);
    reader.resume();
    state.end(runId, RunStatus.RUN_STATUS_SUCCEEDED);
    await reader.ended;
    expect(ids(reader)).toEqual(upTo(1_002));
  });

  it("leaves nothing behind at the coordinator when the reader goes", async () => {
    const runId = await startRun();
    const reader = await watch(runId);
    await reader.until(1);
    reader.close();
    // The scripted stream waits for changes only while its call lives.
    const deadline = performance.now() + 10_000;
    let idle = 0;
    while (idle < 20 && performance.now() < deadline) {
      idle = state.waiting.size === 0 ? idle + 1 : 0;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(idle).toBe(20);
  });

  it("ends its streams when the gateway stops", async () => {
    const runId = await startRun();
    const reader = await watch(runId);
    await reader.until(1);
    await gateway.stop();
    await reader.ended;
    await gateway.stop();
  });
});

describe("event pages", () => {
  it("waits for the next event, and goes on behind it", async () => {
    const runId = await startRun();
    const page = (after: string) =>
      ask(gateway, `/api/v1/runs/${runId}/events?after_seq=${after}&wait=10s`).then(({ json }) => json);
    const first = await page("0");
    expect(first).toMatchObject({ nextAfterSeq: "1", ended: false, events: [{ seq: "1" }] });
    const waiting = page(first.nextAfterSeq);
    state.add(runId, step("a"));
    expect(await waiting).toMatchObject({ nextAfterSeq: "2", events: [{ stepId: "a" }] });
    state.end(runId, RunStatus.RUN_STATUS_SUCCEEDED);
    expect(await page("2")).toMatchObject({ nextAfterSeq: "3", ended: true });
    expect(await page("3")).toEqual({ events: [], nextAfterSeq: "3", ended: true });
  });
});
