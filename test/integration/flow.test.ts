/** The flow guides' chains, run as they stand there, over both stores and both carriers. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { defineAction, fail } from "@taskmesh/action-sdk";
import { EventKind, RunStatus, SignalRunRequest, StepStatus } from "@taskmesh/proto";
import { parseChainDocument, unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { countOf, type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { PageActionsService } from "../fixtures/page-actions.js";

/** The chains of a guide, in the order in which they stand there. */
function chainsOf(guide: string): string[] {
  const text = readFileSync(join(import.meta.dirname, "../../docs/guides", guide), "utf8");
  return [...text.matchAll(/```yaml\n(contract:[\s\S]*?)```/g)].map(([, chain]) => chain!);
}

const { RUN_STATUS_SUCCEEDED, RUN_STATUS_FAILED } = RunStatus;
const { STEP_STATUS_SKIPPED, STEP_STATUS_SUCCEEDED, STEP_STATUS_CANCELLED, STEP_STATUS_FAILED } = StepStatus;

describe.each(["embedded", "servers"] as const)("the flow of runs on %s", (on) => {
  let mesh: InProcessMesh;
  const asked = new Map<string, number>();

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
    await mesh.serve([
      defineAction(PageActionsService.score, async ({ text }: { text: string }, context) => {
        if (text.startsWith("fail")) throw new Error("no words today");
        if (text === "no text") throw fail.retryable("NOT_A_TEXT", "it has no words");
        if (text.startsWith("slow"))
          await new Promise<void>((resolve) => context.signal.addEventListener("abort", () => resolve()));
        const times = (asked.get(text) ?? 0) + 1;
        asked.set(text, times);
        return { words: text.startsWith("poll") ? times : text.split(" ").length };
      }),
    ]);
    for (const guide of ["conditional-flow.md", "polling.md", "sub-chains.md", "retries-and-limits.md"]) {
      for (const chain of chainsOf(guide)) {
        const { spec, problems } = parseChainDocument(chain);
        expect(problems, guide).toEqual([]);
        await mesh.putChain(spec as never);
      }
    }
  }, 60_000);
  afterAll(() => mesh?.stop());

  const run = async (method: string, input: object) => {
    const runId = await mesh.start({ method, input: { $case: "json", value: JSON.stringify(input) } });
    const result = await mesh.result(runId);
    const shown = await unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: false });
    const status = Object.fromEntries(shown.steps.map((step) => [step.stepId, step.status]));
    return { runId, result, shown, status };
  };

  it.each([
    ["one two three four", "long", "short"],
    ["one", "short", "long"],
  ])("takes one branch of a switch and skips the other: %s", async (text, taken, skipped) => {
    const { result, status } = await run("acme.pages.v1.Flows/Route", { text });
    expect(result.status).toBe(RUN_STATUS_SUCCEEDED);
    expect(status).toMatchObject({ [taken]: STEP_STATUS_SUCCEEDED, [skipped]: STEP_STATUS_SKIPPED });
    expect(status["report"]).toBe(STEP_STATUS_SUCCEEDED);
  });

  it("ends a race with its first success and cancels the rest", async () => {
    const { result, status } = await run("acme.pages.v1.Flows/Race", { first: "quick", second: "slow" });
    expect(result.status).toBe(RUN_STATUS_SUCCEEDED);
    expect(status).toMatchObject({ one: STEP_STATUS_SUCCEEDED, two: STEP_STATUS_CANCELLED });
  });

  it("wins a race by the branch that does not fail", async () => {
    const { result, status } = await run("acme.pages.v1.Flows/Race", { first: "fail", second: "quick" });
    expect(result.status).toBe(RUN_STATUS_SUCCEEDED);
    expect(status).toMatchObject({ one: STEP_STATUS_FAILED, two: STEP_STATUS_SUCCEEDED });
    const lost = await run("acme.pages.v1.Flows/Race", { first: "fail", second: "fail too" });
    expect(lost.result).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "HANDLER_ERROR" } });
  });

  it.each([
    [true, "patience", 2],
    [false, "approval", 3],
  ])("goes on with an event or after a time, whichever is first: %s", async (answered, loser, words) => {
    const method = "acme.pages.v1.Flows/EventOrTime";
    const runId = await mesh.start({ method, input: { $case: "json", value: "{}" } });
    if (answered) {
      const input = { $case: "json" as const, value: '{"approved": true}' };
      const signal = { name: "approval", id: "", value: input };
      const request = SignalRunRequest.fromPartial({ namespace: "default", runId, signal } as never);
      await unaryCall(mesh.runs, mesh.runs.signalRun, request);
    }
    expect((await mesh.result(runId)).status).toBe(RUN_STATUS_SUCCEEDED);
    const shown = await unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: false });
    expect(shown.steps.find(({ stepId }) => stepId === loser)?.status).toBe(STEP_STATUS_CANCELLED);
    const output = shown.steps.find(({ stepId }) => stepId === "report")?.output;
    expect(output?.data).toEqual({ $case: "inline", value: Buffer.from([8, words]) });
  });

  it("asks again until it is ready", async () => {
    const { runId, result } = await run("acme.pages.v1.Flows/Poll", { text: `poll ${on}` });
    expect(result.status).toBe(RUN_STATUS_SUCCEEDED);
    expect(countOf(await mesh.history(runId), EventKind.EVENT_KIND_STEP_ROUND)).toBe(2);
  });

  it("tries again as often as its policy says, unless it need not", async () => {
    const careful = async (text: string) => (await run("acme.pages.v1.Flows/Careful", { text })).shown.steps[0];
    expect(await careful("a b")).toMatchObject({ status: STEP_STATUS_SUCCEEDED, attempt: 1 });
    expect(await careful("fail")).toMatchObject({ attempt: 4, failure: { reason: "HANDLER_ERROR" } });
    expect(await careful("no text")).toMatchObject({ attempt: 1, failure: { reason: "NOT_A_TEXT" } });
  });

  it("calls a chain like an action", async () => {
    const { result, shown } = await run("acme.pages.v1.Flows/Compare", { left: "a b", right: "a b c" });
    expect(result.status).toBe(RUN_STATUS_SUCCEEDED);
    expect(shown.steps.filter(({ childRunId }) => childRunId !== "")).toHaveLength(2);
  });
});
