/** The recipes of the guide, as they are printed there. */
import { defineAction, fail } from "@taskmesh/action-sdk";
import {
  AssignmentServiceClient,
  CancelRunRequest,
  CompleteAssignmentRequest,
  RunStatus,
  SignalRunRequest,
  StepStatus,
} from "@taskmesh/proto";
import { createClient, unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { compileProtos } from "../fixtures/compile-protos.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { entriesOf } from "../fixtures/method-entries.js";
import { guideBlock, guideChain } from "../fixtures/trip-actions.js";

const descriptors = compileProtos({
  "acme/daily/v1/daily.proto": guideBlock("recipes.md", "proto", "service DailyActions"),
});
const entry = entriesOf(descriptors, "acme.daily.v1.DailyActions");
const within = { timeout: 20_000, interval: 25 };

let mesh: InProcessMesh;
/** Whatever the actions did, in order. */
const done: string[] = [];
const since = (mark: string): string[] => done.slice(done.indexOf(mark));

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "embedded" });
  const actions = [
    defineAction(entry<{ order: string }, { id: string }>("Pay"), ({ order }) => {
      done.push(`paid ${order}`);
      return { id: `receipt of ${order}` };
    }),
    defineAction(entry<{ id: string; why: string }, { id: string }>("Refund"), ({ id, why }) => {
      done.push(`refunded ${id}: ${why}`);
      return { id };
    }),
    defineAction(entry<{ version: string }, { version: string; before: string }>("Deploy"), ({ version }) => {
      done.push(`deployed ${version}`);
      return { version, before: "v1" };
    }),
    defineAction(entry<{ version: string }, { healthy: boolean }>("Check"), ({ version }) => {
      if (version === "ill") throw fail.retryable("UNHEALTHY", "it does not answer");
      return { healthy: true };
    }),
    defineAction(entry<{ version: string }, { version: string; before: string }>("RollBack"), ({ version }) => {
      done.push(`rolled back to ${version}`);
      return { version, before: "" };
    }),
  ];
  const place = [
    defineAction(entry<{ name: string }, { path: string }>("MakeFolder"), ({ name }) => {
      done.push(`made ${name}`);
      return { path: name };
    }),
    defineAction(entry<{ path: string; source: string }, { path: string }>("Fetch"), ({ path, source }) => {
      if (source === "nowhere") throw fail.final("NOT_FOUND", "there is nothing");
      return { path };
    }),
    defineAction(entry<{ path: string }, { files: number }>("Build"), () => ({ files: 3 })),
    defineAction(entry<{ path: string }, { path: string }>("RemoveFolder"), ({ path }) => {
      done.push(`removed ${path}`);
      return { path };
    }),
  ];
  const { carrier } = mesh.coordinator;
  await mesh.serve(actions, { descriptors, carrier });
  await mesh.serve(place, { descriptors, carrier, taskQueue: "builder-1" });
  for (const rpc of ["Orders/Order", "Releases/Ship", "Builds/Build"])
    await mesh.putChain(guideChain("recipes.md", `acme.daily.v1.${rpc}`));
}, 60_000);
afterAll(() => mesh.stop());

const start = (rpc: string, input: object): Promise<string> =>
  mesh.start({ method: `acme.daily.v1.${rpc}`, input: { $case: "json", value: JSON.stringify(input) } });
const status = async (runId: string) => (await mesh.result(runId)).status;
const waits = (runId: string, index: number) =>
  vi.waitFor(async () => {
    const shown = await unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: true });
    expect(shown.steps[index]?.status).toBe(StepStatus.STEP_STATUS_WAITING);
  }, within);

describe("a food order", () => {
  const tell = (runId: string, name: string, value: object) => {
    const signal = { name, id: "", value: { $case: "json" as const, value: JSON.stringify(value) } };
    return unaryCall(
      mesh.runs,
      mesh.runs.signalRun,
      SignalRunRequest.fromPartial({ namespace: "default", runId, signal }),
    );
  };

  it("goes from state to state", async () => {
    const runId = await start("Orders/Order", { order: "soup", cents: 900 });
    await tell(runId, "accepted", { minutes: 20 });
    await tell(runId, "picked_up", { courier: "Ada" });
    await tell(runId, "delivered", {});
    expect(await status(runId)).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(since("paid soup")).toEqual(["paid soup"]);
  });

  it("that takes too long is paid back", async () => {
    const chain = guideChain("recipes.md", "acme.daily.v1.Orders/Order");
    const [pay, accepted, ...others] = chain.steps;
    const hasty = { ...accepted!, scheduleToClose: { seconds: 1n, nanos: 0 } };
    const contract = { ...chain.contract!, name: "acme.daily.v1.Orders/Hasty" };
    await mesh.putChain({ ...chain, contract, steps: [pay!, hasty, ...others] });
    const runId = await start("Orders/Hasty", { order: "stew", cents: 1_200 });
    expect(await mesh.result(runId)).toMatchObject({
      status: RunStatus.RUN_STATUS_FAILED,
      failure: { reason: "SCHEDULE_TO_CLOSE_TIMEOUT" },
    });
    expect(since("paid stew")).toEqual(["paid stew", "refunded receipt of stew: SCHEDULE_TO_CLOSE_TIMEOUT"]);
  });

  it("that is cancelled is paid back", async () => {
    const runId = await start("Orders/Order", { order: "rice", cents: 700 });
    await waits(runId, 1);
    const request = CancelRunRequest.fromPartial({ namespace: "default", runId, reason: "not hungry" });
    await unaryCall(mesh.runs, mesh.runs.cancelRun, request);
    expect(await status(runId)).toBe(RunStatus.RUN_STATUS_CANCELLED);
    expect(since("paid rice")).toEqual(["paid rice", "refunded receipt of rice: CANCELLED"]);
  });
});

describe("a release", () => {
  async function ship(version: string, approved: boolean): Promise<string> {
    const runId = await start("Releases/Ship", { version });
    await waits(runId, 0);
    const people = createClient(AssignmentServiceClient, { addresses: [mesh.address] });
    const form = { $case: "json" as const, value: JSON.stringify({ approved }) };
    const about = { namespace: "default", runId, stepId: "approve", person: "grace", groups: ["release"] };
    await unaryCall(
      people,
      people.completeAssignment,
      CompleteAssignmentRequest.fromPartial({ ...about, output: form } as never),
    ).finally(() => people.close());
    return runId;
  }

  it("is deployed when it is approved, and not otherwise", async () => {
    expect(await status(await ship("v2", true))).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(done).toContain("deployed v2");
    expect(await status(await ship("v3", false))).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(done).not.toContain("deployed v3");
  });

  it("that turns out ill is rolled back", async () => {
    const result = await mesh.result(await ship("ill", true));
    expect(result).toMatchObject({ status: RunStatus.RUN_STATUS_FAILED, failure: { reason: "UNHEALTHY" } });
    expect(since("deployed ill")).toEqual(["deployed ill", "rolled back to v1"]);
  });
});

describe("work in one place", () => {
  it.each([
    ["succeeds", "somewhere", RunStatus.RUN_STATUS_SUCCEEDED],
    ["fails", "nowhere", RunStatus.RUN_STATUS_FAILED],
  ])("is cleaned up when it %s", async (name, source, wanted) => {
    expect(await status(await start("Builds/Build", { name, source }))).toBe(wanted);
    expect(since(`made ${name}`)).toEqual([`made ${name}`, `removed ${name}`]);
  });
});
