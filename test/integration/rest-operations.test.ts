/** People acting on runs over REST and by the command line: each operation, what it answers, and what it refuses. */
import { defineAction, fail } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import { RunStatus } from "@taskmesh/proto";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type Said, taskmeshAt } from "../fixtures/command-line.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { faultsSeenByPrism } from "../fixtures/prism.js";
import { type Answer, ask, holdToDocument, startTestGateway } from "../fixtures/rest-gateway.js";
import { guideChain, TripActionsService, tripDescriptors } from "../fixtures/trip-actions.js";

const pay = "acme.trips.v1.Trips/Pay";
const bound = { timeout: 20_000, interval: 25 };

let mesh: InProcessMesh;
let gateway: Gateway;
/** Travellers whose card is declined. */
const declined = new Set<string>();
/** Hotels that never answer. */
const silent = new Set<string>();

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "embedded" });
  gateway = await startTestGateway([mesh.address.port]);
  await holdToDocument(gateway);
  const actions = [
    defineAction(TripActionsService.bookHotel, async ({ place }, { signal }) => {
      if (silent.has(place)) await new Promise((resolve) => signal.addEventListener("abort", resolve));
      return { code: "H123" };
    }),
    defineAction(TripActionsService.charge, ({ traveller, cents }) => {
      if (declined.has(traveller)) throw fail.final("CARD_DECLINED", "the card is declined");
      return { id: `paid by ${traveller}`, cents };
    }),
  ];
  await mesh.serve(actions, { descriptors: tripDescriptors, carrier: mesh.coordinator.carrier });
  await mesh.putChain(guideChain("failure.md", pay));
}, 180_000);
afterAll(async () => {
  await gateway.stop();
  await mesh.stop();
}, 30_000);

const start = (traveller: string, place = "Rome"): Promise<string> =>
  mesh.start({ method: pay, input: { $case: "json", value: JSON.stringify({ traveller, place }) } });
const startSilent = (traveller: string): Promise<string> => {
  silent.add(traveller);
  return start(traveller, traveller);
};
const breakOne = async (traveller: string): Promise<string> => {
  declined.add(traveller);
  const runId = await start(traveller);
  expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_BROKEN);
  declined.delete(traveller);
  return runId;
};
const result = async (runId: string): Promise<string> => {
  const { output } = await mesh.result(runId);
  return output?.data?.$case === "inline" ? Buffer.from(output.data.value).toString("latin1") : "";
};

describe("over REST", () => {
  const why = { reason: "the bank called", actor: "ann" };
  const post = (runId: string, verb: string, body: unknown = why): Promise<Answer> =>
    ask(gateway, `/api/v1/runs/${runId}/${verb}`, { body });
  const show = (runId: string): Promise<Answer> => ask(gateway, `/api/v1/runs/${runId}`);

  it("a run is paused, changed, resumed and terminated", async () => {
    const runId = await startSilent("ann");
    const said = async (verb: string, body?: unknown) => (await post(runId, verb, body)).json.run;
    expect(await said("pause")).toMatchObject({ status: "RUN_STATUS_PAUSED" });
    expect(await said("pause"), "again").toMatchObject({ status: "RUN_STATUS_PAUSED" });
    const change = { priority: 7, setLabels: { team: "ops" }, removeLabels: ["none"] };
    expect(await said("update", change)).toMatchObject({ priority: 7, labels: { team: "ops" } });
    expect(await said("resume")).toMatchObject({ status: "RUN_STATUS_RUNNING" });
    expect(await said("terminate")).toMatchObject({
      status: "RUN_STATUS_CANCELLED",
      failure: { reason: "TERMINATED", message: "the bank called" },
    });
    const { status, json } = await post(runId, "pause");
    expect([status, json.reason]).toEqual([409, "RUN_ENDED"]);
  });

  it("a broken run shows what broke it, and is mended by a retry with another input", async () => {
    const runId = await breakOne("eve");
    expect((await show(runId)).json.run).toMatchObject({ status: "RUN_STATUS_BROKEN", brokenSteps: ["charge"] });
    const waiting = await ask(gateway, `/api/v1/runs/${runId}/result?wait=5s`);
    expect(waiting.json).toMatchObject({ status: "RUN_STATUS_BROKEN", failure: { reason: "CARD_DECLINED" } });
    declined.add("max");
    const called = await ask(gateway, `/v1/${pay}`, { body: { traveller: "max", place: "Rome" } });
    expect([called.status, called.json.reason]).toEqual([409, "RUN_BROKEN"]);
    const wrong = await post(runId, "steps/charge/retry", { input: { traveler: "x" } });
    expect([wrong.status, wrong.json.reason]).toEqual([400, "INPUT_INVALID"]);
    const other = await post(runId, "steps/hotel/retry");
    expect([other.status, other.json.reason]).toEqual([409, "STEP_NOT_BROKEN"]);
    const absent = await post(runId, "steps/none/skip");
    expect([absent.status, absent.json.reason]).toEqual([404, "STEP_NOT_FOUND"]);
    const retried = await post(runId, "steps/charge/retry", { ...why, input: { traveller: "uncle", cents: 5 } });
    expect(retried.status).toBe(200);
    expect(await result(runId)).toContain("paid by uncle");
  });

  it("all broken steps are retried at once, and a step is skipped with an output", async () => {
    const first = await breakOne("bob");
    expect((await post(first, "retry")).status).toBe(200);
    expect(await result(first)).toContain("paid by bob");
    const second = await breakOne("kim");
    const refused = await post(second, "steps/charge/skip");
    expect([refused.status, refused.json.reason]).toEqual([400, "OUTPUT_NEEDED"]);
    const output = { id: "paid in cash", cents: 400 };
    expect((await post(second, "steps/charge/skip", { ...why, output })).status).toBe(200);
    expect(await result(second)).toContain("paid in cash");
  });

  it.each([
    ["pause", { reason: 5 }, "reason"],
    ["pause", { because: "x" }, "because"],
    ["update", { priority: "high" }, "priority"],
    ["update", {}, "priority"],
    ["retry", { input: {} }, "input"],
    ["terminate", [], ""],
  ])("%s with %j is refused by name", async (verb, body, field) => {
    const { status, json } = await post(await start("lea"), verb, body);
    expect([status, json.reason]).toEqual([400, "ARGUMENT_INVALID"]);
    expect(JSON.stringify(json)).toContain(field);
  });
});

describe("by the command line", () => {
  const runs = (...args: string[]): Promise<Said> => taskmeshAt(gateway, ["runs", ...args]);

  it("pauses, changes, resumes and terminates a run", async () => {
    const runId = await startSilent("cleo");
    expect(await runs("pause", runId, "--reason", "lunch")).toMatchObject({ code: 0, out: `${runId} is PAUSED` });
    const update = ["update", runId, "--priority", "3", "-l", "team=desk", "--actor", "cleo"];
    expect(await runs(...update)).toMatchObject({ code: 0 });
    expect(await runs("resume", runId)).toMatchObject({ code: 0, out: `${runId} is RUNNING` });
    expect(await runs("terminate", runId)).toMatchObject({ code: 0, out: `${runId} is CANCELLED` });
    const again = await runs("resume", runId);
    expect(again.code).not.toBe(0);
    expect(again.err).toContain("CANCELLED");
  }, 60_000);

  it("shows, retries and skips what broke", async () => {
    const [first, second] = [await breakOne("dan"), await breakOne("gil")];
    const [shown, mended] = [await runs("show", first), await runs("retry", first, "--reason", "it is paid for")];
    expect(shown.out).toContain("BROKEN");
    expect(mended).toMatchObject({ code: 0 });
    expect(await result(first)).toContain("paid by dan");
    const input = await runs("retry", second, "--input", "{}");
    expect(input.err).toContain("--input needs the step");
    const refused = await runs("skip", second, "charge", "--output", '{"cents":"many"}');
    expect(refused.err).toContain("cents");
    const skipped = await runs("skip", second, "charge", "--output", '{"id":"cash","cents":1}');
    expect(skipped).toMatchObject({ code: 0 });
    await vi.waitFor(async () => expect(await result(second)).toContain("cash"), bound);
  }, 60_000);
});

describe("a validating proxy", () => {
  it("finds nothing wrong with the answers above", async () => {
    expect(await faultsSeenByPrism(gateway)).toEqual([]);
  });
});
