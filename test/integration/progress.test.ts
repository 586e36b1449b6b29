/** Progress and checkpoints from a handler's report to callers and to the next attempt: gRPC, REST and its event stream. */
import { type ActionContext, defineAction, fail } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import { EventKind, RunEnded, RunStatus, type WatchRunResponse } from "@taskmesh/proto";
import { unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { countOf, type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { PageActionsService } from "../fixtures/page-actions.js";
import { ask, holdToDocument, readEvents, startTestGateway } from "../fixtures/rest-gateway.js";

const score = "acme.pages.v1.PageActions/Score";
const chain = "acme.pages.v1.Chains/Reports";
const type = "taskmesh.v1.RunEnded";
const bound = { timeout: 30_000, interval: 50 };
/** Longer than a beat here, so that it says something of attempts that outlive theirs. */
const silentMs = 1_500;

interface JsonProgress {
  percent: number;
  estimated: boolean;
  steps: { stepId: string; progress: { percent: number; estimated: boolean } }[];
}

describe.each(["servers", "embedded"] as const)("progress on %s", (on) => {
  let mesh: InProcessMesh;
  let gateway: Gateway;
  let release = (): void => {};
  const resumedFrom: (string | undefined)[] = [];

  const handler = async ({ text }: { text: string }, context: ActionContext): Promise<{ words: number }> => {
    if (text === "quick") return { words: 1 };
    if (text === "silent") {
      await new Promise((resolve) => setTimeout(resolve, silentMs));
      return { words: 2 };
    }
    resumedFrom.push(context.loadCheckpoint(type, RunEnded)?.status);
    if (text === "flaky" && context.attempt === 1) {
      context.saveCheckpoint(type, RunEnded, { runId: "", status: "page 7" });
      throw fail.retryable("TRY_AGAIN", "half done");
    }
    if (text === "flaky") return { words: 7 };
    if (text !== "mute") context.progress(40, "four of ten");
    context.saveCheckpoint(type, RunEnded, { runId: "", status: `page ${context.attempt}` });
    await new Promise<void>((resolve, reject) => {
      release = resolve;
      context.signal.addEventListener("abort", () => reject(context.signal.reason));
    });
    return { words: context.attempt };
  };

  beforeAll(async () => {
    mesh = await startInProcessMesh({
      on,
      intervals: { beatMs: 200, flushMs: 100, epochPollMs: 200, unlistedMs: 600, bindingScanMs: 200 },
    });
    gateway = await startTestGateway([mesh.coordinator.listener.address.port]);
    await holdToDocument(gateway);
    await mesh.serve([defineAction(PageActionsService.score, handler)]);
    await mesh.putChain({
      contract: { name: chain, input: { text: "string" }, output: { words: "int32" } },
      steps: [
        { id: "first", call: score, input: { text: { kind: { $case: "literal", value: "quick" } } } },
        {
          id: "second",
          call: score,
          needs: ["first"],
          input: { text: { kind: { $case: "cel", value: "input.text" } } },
          retry: { backoff: { $case: "fixed", value: { delay: { seconds: 0n, nanos: 1_000_000 } } } },
        },
      ],
      output: { words: { kind: { $case: "cel", value: "steps.second.output.words" } } },
    } as never);
  });
  afterAll(async () => {
    await gateway?.stop();
    await mesh?.stop();
  });

  const start = (text: string): Promise<string> =>
    mesh.start({ method: chain, input: { $case: "json", value: JSON.stringify({ text }) } });

  it("is shown while the handler runs, told to watchers, and leaves no trace in the history", async () => {
    const runId = await start("hold");
    const told: WatchRunResponse[] = [];
    const stream = mesh.runs.watchRun({ namespace: "default", runId, afterSeq: 0n });
    stream.on("data", (one: WatchRunResponse) => told.push(one));
    stream.on("error", () => {});
    const sse = await readEvents(gateway, `/api/v1/runs/${runId}/events`);
    const notice = { stepId: "second", item: 0, progress: { percent: 40, message: "four of ten", estimated: false } };
    const picture = { percent: 70, steps: [notice], estimated: false };
    await vi.waitFor(() => expect(told.flatMap(({ progress }) => progress ?? [])).toEqual([picture]), bound);
    const { json } = await ask(gateway, `/api/v1/runs/${runId}`);
    expect(json).toMatchObject({
      run: { progress: { percent: 70 } },
      steps: [{ status: "STEP_STATUS_SUCCEEDED" }, { progress: { percent: 40, message: "four of ten" } }],
    });
    expect(json.steps[0].progress).toBeUndefined();
    release();
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    await vi.waitFor(() => expect(sse.events.some(({ event }) => event === "progress")).toBe(true), bound);
    sse.close();
    const history = await mesh.history(runId);
    expect(history.map(({ seq }) => Number(seq))).toEqual(history.map((_, index) => index + 1));
    const { json: after } = await ask(gateway, `/api/v1/runs/${runId}`);
    expect(after.run.progress.percent).toBe(100);
    expect(after.steps[1].progress).toBeUndefined();
  });

  it("gives the checkpoint of an attempt that failed at once to the next", async () => {
    resumedFrom.length = 0;
    const result = await mesh.result(await start("flaky"));
    expect(result.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(resumedFrom).toEqual([undefined, "page 7"]);
  });

  it("gives the checkpoint of an attempt whose worker vanished to the next", async () => {
    resumedFrom.length = 0;
    const runId = await start("lost");
    const { steps } = await vi.waitFor(async () => {
      const answer = await unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: true });
      expect(answer.steps[1]?.progress?.percent).toBe(40);
      return answer;
    }, bound);
    expect(steps[1]?.attempt).toBe(1);
    const [binding] = await lostBinding(runId);
    await mesh.coordinator.engine.intake.lose(binding!, "the test says so");
    await vi.waitFor(() => expect(resumedFrom).toEqual([undefined, "page 1"]), bound);
    release();
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(countOf(await mesh.history(runId), EventKind.EVENT_KIND_ATTEMPT_LOST)).toBe(1);
  });

  it("is estimated from what the action took before where a handler says nothing, also behind a pause", async () => {
    for (const runId of await Promise.all([1, 2, 3].map(() => start("silent")))) await mesh.result(runId);
    const runId = await start("mute");
    const look = async () => (await ask(gateway, `/api/v1/runs/${runId}`)).json;
    // The durations are written at the pace of beats.
    await vi.waitFor(async () => expect((await look()).run.progress.estimated).toBe(true), bound);
    const sse = await readEvents(gateway, `/api/v1/runs/${runId}/events`);
    const told = () => sse.events.filter(({ event }) => event === "progress").map(({ data }) => data as JsonProgress);
    const request = { namespace: "default", runId, reason: "" };
    await unaryCall(mesh.runs, mesh.runs.pauseRun, request as never);
    await vi.waitFor(() => expect(told().at(-1)?.percent).toBeGreaterThan(96), bound);
    await unaryCall(mesh.runs, mesh.runs.resumeRun, request as never);
    const percents = told().map(({ percent }) => percent);
    expect(percents).toEqual([...percents].sort((a, b) => a - b));
    for (const one of told()) {
      expect(one).toMatchObject({ estimated: true, steps: [{ stepId: "second", progress: { estimated: true } }] });
      expect(one.percent).toBeLessThan(100);
      expect(one.percent).toBe(Math.round((100 + one.steps[0]!.progress.percent) * 5) / 10);
    }
    expect((await look()).steps[1].progress.percent).toBeLessThan(100);
    release();
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    // A pause is no end: the stream went on to the last event.
    await vi.waitFor(() => expect(sse.events.at(-1)?.data).toMatchObject({ kind: "EVENT_KIND_RUN_ENDED" }), bound);
    sse.close();
    expect((await look()).run.progress).toEqual({ percent: 100, message: "", estimated: false });
  });

  /** The bound attempt of a run, as the registry would give it up. */
  const lostBinding = async (runId: string) => {
    const { workers } = await unaryCall(mesh.registry, mesh.registry.listWorkers, { namespace: "default" });
    const session = mesh.coordinator.registry.sessions.find(workers[0]!.sessionId);
    const leases = [...(session?.listed ?? [])];
    return leases.map((lease) => ({ runId, stepId: "second", item: 0, attempt: 1, lease }));
  };
});
