/** Steps that wait instead of calling, end to end: on real servers and on what is embedded. The chains are those of the guide. */
import {
  EventKind,
  GetRunRequest,
  type GetRunResponse,
  RunStatus,
  SignalRunRequest,
  StepStatus,
} from "@taskmesh/proto";
import { isStatusError, unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { chainOfGuide } from "../fixtures/guide.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";

const chainOf = (rpc: string) => chainOfGuide("waiting.md", rpc);

const within = { timeout: 20_000, interval: 50 };

describe.each(["servers", "embedded"] as const)("waiting steps on %s", (on) => {
  let mesh: InProcessMesh;

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
  }, 60_000);
  afterAll(() => mesh.stop(), 30_000);

  const show = (runId: string): Promise<GetRunResponse> =>
    unaryCall(mesh.runs, mesh.runs.getRun, GetRunRequest.fromPartial({ namespace: "default", runId }));
  const stepOf = async (runId: string, id: string) => (await show(runId)).steps.find(({ stepId }) => stepId === id)!;

  const remind = (pause: string, at: string): Promise<string> =>
    mesh.start({
      method: "acme.reminders.v1.Reminders/Remind",
      input: { $case: "json", value: JSON.stringify({ pause, at }) },
    });

  it("time passes without a worker", async () => {
    await mesh.putChain(chainOf("Remind"));
    const at = new Date(Date.now() + 1_000).toISOString();
    const runId = await remind("0.2s", at);
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    const { steps } = await show(runId);
    expect(steps.map(({ status, attempt }) => [status, attempt])).toEqual(
      Array(3).fill([StepStatus.STEP_STATUS_SUCCEEDED, 0]),
    );
    const endedAt = steps[2]!.endedAt!;
    expect(Number(endedAt.seconds) * 1_000 + endedAt.nanos / 1e6).toBeGreaterThanOrEqual(Date.parse(at));
    const kinds = (await mesh.history(runId)).map(({ kind }) => kind);
    expect(kinds.filter((kind) => kind === EventKind.EVENT_KIND_STEP_SUCCEEDED)).toHaveLength(3);
  }, 40_000);

  it("a run starts at the instant that it is told", async () => {
    await mesh.putChain(chainOf("Remind"));
    const atMs = Date.now() + 1_500;
    const startAt = { seconds: BigInt(Math.floor(atMs / 1000)), nanos: (atMs % 1000) * 1_000_000 };
    const runId = await mesh.start({ method: "acme.reminders.v1.Reminders/Remind", startAt });
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    const [accepted, started] = await mesh.history(runId);
    expect([accepted!.kind, started!.kind]).toEqual([
      EventKind.EVENT_KIND_RUN_ACCEPTED,
      EventKind.EVENT_KIND_RUN_STARTED,
    ]);
    expect(Number(started!.at!.seconds) * 1_000 + started!.at!.nanos / 1e6).toBeGreaterThanOrEqual(atMs);
  }, 40_000);

  it("the run's view says until when, and a cancel ends the wait", async () => {
    await mesh.putChain(chainOf("Remind"));
    const at = new Date(Date.now() + 3_600_000).toISOString();
    const runId = await remind("0s", at);
    await vi.waitFor(async () => {
      const step = await stepOf(runId, "appointment");
      expect(step.status).toBe(StepStatus.STEP_STATUS_WAITING);
      expect(Number(step.waitUntil!.seconds) * 1_000 + step.waitUntil!.nanos / 1e6).toBe(Date.parse(at));
    }, within);
    await unaryCall(mesh.runs, mesh.runs.cancelRun, { namespace: "default", runId, reason: "enough", actor: "" });
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    expect((await stepOf(runId, "appointment")).status).toBe(StepStatus.STEP_STATUS_CANCELLED);
  }, 40_000);

  const send = (runId: string, name: string, value: object, id = "") =>
    unaryCall(
      mesh.runs,
      mesh.runs.signalRun,
      SignalRunRequest.fromPartial({
        namespace: "default",
        runId,
        signal: { name, id, value: { $case: "json", value: JSON.stringify(value) } },
      }),
    );
  const reasonOf = (error: unknown): string => (isStatusError(error) ? error.reason : String(error));

  it("signals are typed, kept until their step waits, known again by their id, and come with a start", async () => {
    await mesh.putChain(chainOf("Deliver"));
    const method = "acme.orders.v1.Orders/Deliver";
    const runId = await mesh.start({ method });
    expect(await send(runId, "rating", { stars: "many" }).catch(reasonOf)).toBe("INPUT_INVALID");
    expect(await send(runId, "ratin", {}).catch(String)).toContain('did you mean "rating"?');
    expect(await send(runId, "rating", { stars: 5 }, "r-1")).toMatchObject({ delivered: false, existing: false });
    expect(await send(runId, "rating", { stars: 1 }, "r-1")).toMatchObject({ delivered: false, existing: true });
    expect(await send(runId, "picked_up", { courier: "Ada" })).toMatchObject({ delivered: true, existing: false });
    const result = await mesh.result(runId);
    expect(result.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    // courier = "Ada", rating = 5
    expect(Buffer.from((result.output!.data as { value: Uint8Array }).value).toString("hex")).toBe("0a034164611005");
    expect(await send(runId, "rating", { stars: 5 }, "r-1").catch(reasonOf)).toBe("RUN_ENDED");
    const events = await mesh.history(runId);
    const signals = events.filter(({ kind }) => kind === EventKind.EVENT_KIND_SIGNAL_RECEIVED);
    expect(signals.map(({ note, payload }) => [note, payload !== undefined])).toEqual([
      ["rating", true],
      ["picked_up", false],
    ]);

    const signal = { name: "picked_up", id: "s", value: { $case: "json" as const, value: '{"courier":"Bea"}' } };
    const started = await mesh.start({ method, idempotencyKey: `with-${on}`, signal });
    expect((await stepOf(started, "picked_up")).status).toBe(StepStatus.STEP_STATUS_SUCCEEDED);
    const rating = { name: "rating", id: "t", value: { $case: "json" as const, value: '{"stars":4}' } };
    expect(await mesh.start({ method, idempotencyKey: `with-${on}`, signal: rating })).toBe(started);
    expect((await mesh.result(started)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  }, 40_000);
});
