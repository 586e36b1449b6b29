/** Callers of the REST API while coordinators, each a process of its own, are killed: no call fails, no event is missed. */
import type { Gateway } from "@taskmesh/gateway";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chainMethod } from "../bench/chain.js";
import { type Mesh, startMesh } from "../fixtures/mesh.js";
import { ask, readEvents, startTestGateway } from "../fixtures/rest-gateway.js";

let mesh: Mesh;
let gateway: Gateway;
beforeAll(async () => {
  mesh = await startMesh({ coordinators: 2, workerEnv: { DELAY_MS: "300" } });
  gateway = await startTestGateway(mesh.addresses.map(({ port }) => port));
});
afterAll(async () => {
  await gateway?.stop();
  await mesh?.stop();
});

const input = (run: number) => ({ counter: 0, run: String(run), pad: "x" });

/** Calls until `isDone`, from `lanes` callers; returns how many calls each outcome had. */
async function load(lanes: number, isDone: () => boolean): Promise<Map<string, number>> {
  const outcomes = new Map<string, number>();
  let next = 1_000;
  const lane = async () => {
    while (!isDone()) {
      const run = next++;
      const answer = await ask(gateway, `/v1/${chainMethod}`, { body: input(run) });
      const isRight = answer.status === 200 && answer.json.counter === 5 && answer.json.run === String(run);
      const outcome = isRight ? "right" : `${answer.status} ${answer.text.slice(0, 300)}`;
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return outcomes;
}

describe("REST over dying coordinators", () => {
  it("answers every call with its own result, and tells every event of a run once", async () => {
    const started = await ask(gateway, "/api/v1/runs", { body: { method: chainMethod, input: input(1) } });
    expect(started.status).toBe(201);
    const { runId } = started.json;
    const reader = await readEvents(gateway, `/api/v1/runs/${runId}/events`);
    let kills = 0;
    let isDone = false;
    const loading = load(8, () => isDone);
    for (const [index, coordinator] of mesh.coordinators.entries()) {
      await reader.until(1 + index * 3);
      await coordinator.kill();
      kills++;
      expect(coordinator.alive).toBe(false);
      // Whatever is answered now, the other one did it.
      expect((await ask(gateway, `/v1/${chainMethod}`, { body: input(index) })).json.counter).toBe(5);
      await coordinator.start();
    }
    await reader.ended;
    isDone = true;
    const outcomes = await loading;
    expect(kills).toBe(2);
    expect([...outcomes.keys()]).toEqual(["right"]);
    const ids = reader.events.map(({ id }) => Number(id));
    expect(ids).toEqual(ids.map((_, index) => index + 1));
    expect(reader.events.at(-1)!.data).toMatchObject({
      kind: "EVENT_KIND_RUN_ENDED",
      runStatus: "RUN_STATUS_SUCCEEDED",
      payload: { counter: 5, run: "1" },
    });
    const { json: shown } = await ask(gateway, `/api/v1/runs/${runId}`);
    expect(shown.steps.map(({ status }: { status: string }) => status)).toEqual(Array(5).fill("STEP_STATUS_SUCCEEDED"));
    expect(Number(shown.run.lastSeq)).toBeGreaterThanOrEqual(ids.length);
  }, 240_000);
});
