/** Chains that call chains, over both stores and both carriers: results, failures, cancels, deadlines, depth, and where each sees the other. */
import { defineAction } from "@taskmesh/action-sdk";
import { EventKind, ParentClose, RunStatus, StepStatus } from "@taskmesh/proto";
import { unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { countOf, type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { PageActionsService } from "../fixtures/page-actions.js";
import { waitFor } from "../fixtures/process.js";

const score = "acme.pages.v1.PageActions/Score";
const inner = "acme.pages.v1.Flows/Inner";
const outer = "acme.pages.v1.Flows/Outer";
const endless = "acme.pages.v1.Flows/Endless";
const patient = "acme.pages.v1.Flows/Patient";
const contract = (name: string) => ({ name, input: { text: "string" }, output: { words: "int32" } });
const cel = (text: string) => ({ kind: { $case: "cel" as const, value: text } });

describe.each(["embedded", "servers"] as const)("sub-chains on %s", (on) => {
  let mesh: InProcessMesh;
  let held: (() => void)[] = [];

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
    await mesh.serve([
      defineAction(PageActionsService.score, async ({ text }: { text: string }, context) => {
        if (text === "fail") throw new Error("no words today");
        if (text === "stuck") await new Promise(() => {});
        if (text === "hold")
          await new Promise<void>((resolve) => {
            held.push(resolve);
            context.signal.addEventListener("abort", () => resolve());
          });
        return { words: text.split(" ").length };
      }),
    ]);
    const calls = (id: string, call: string, more: object = {}) => ({
      id,
      call,
      input: { text: cel("input.text") },
      ...more,
    });
    const never = { maxAttempts: 1 };
    await mesh.putChain({
      contract: contract(inner),
      steps: [calls("score", score, { retry: never })],
      output: { words: cel("steps.score.output.words") },
    });
    await mesh.putChain({
      contract: contract(outer),
      steps: [
        calls("sub", inner),
        { id: "again", call: score, input: { text: cel("'n' + string(steps.sub.output.words)") } },
      ],
      output: { words: cel("steps.sub.output.words + steps.again.output.words") },
    });
    await mesh.putChain({
      contract: contract(endless),
      steps: [calls("deeper", endless)],
      output: { words: cel("steps.deeper.output.words") },
    });
    await mesh.putChain({
      contract: contract(patient),
      steps: [calls("sub", outer, { parentClose: ParentClose.PARENT_CLOSE_CANCEL })],
      output: { words: cel("steps.sub.output.words") },
    });
  }, 60_000);
  afterAll(() => mesh?.stop());

  const start = (method: string, text: string, more: object = {}) =>
    mesh.start({ method, input: { $case: "json", value: JSON.stringify({ text }) }, ...more });
  const show = (runId: string) =>
    unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: false });

  it("answers with what the child made, and each run shows the other", async () => {
    const runId = await start(outer, "one two three");
    const result = await mesh.result(runId);
    expect(result.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    const parent = await show(runId);
    const [sub] = parent.steps;
    expect(sub).toMatchObject({ method: inner, status: StepStatus.STEP_STATUS_SUCCEEDED, attempt: 1 });
    const child = await show(sub!.childRunId);
    expect(child.run).toMatchObject({
      method: inner,
      parentRunId: runId,
      parentStepId: "sub",
      depth: 1,
      chainVersion: 1,
    });
    expect(parent.run).toMatchObject({ parentRunId: "", depth: 0 });
    expect(sub!.attempts).toMatchObject([{ attempt: 1, childRunId: sub!.childRunId }]);
    expect(Number(child.run!.deadlineAt!.seconds)).toBeLessThanOrEqual(Number(parent.run!.deadlineAt!.seconds));
    const events = await mesh.history(runId);
    expect(countOf(events, EventKind.EVENT_KIND_CHILD_STARTED)).toBe(1);
    expect(events.find(({ childRunId }) => childRunId !== "")?.childRunId).toBe(sub!.childRunId);
  });

  it("fails with the reason from the deepest step and its causes", async () => {
    const runId = await start(patient, "fail");
    const { status, failure } = await mesh.result(runId);
    expect(status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(failure?.reason).toBe("HANDLER_ERROR");
    const messages: string[] = [];
    for (let at = failure; at; at = at.cause) messages.push(at.message);
    expect(messages.at(-1)).toContain("no words today");
    expect(messages[0]).toContain('step "sub"');
  });

  it("passes a cancel down to the deepest run", async () => {
    const runId = await start(patient, "hold");
    await waitFor("the handler", () => held.length > 0, 20_000);
    const middleId = (await show(runId)).steps[0]!.childRunId;
    const deepestId = (await show(middleId)).steps[0]!.childRunId;
    await unaryCall(mesh.runs, mesh.runs.cancelRun, { namespace: "default", runId, reason: "enough", actor: "" });
    for (const id of [runId, middleId, deepestId]) {
      expect((await mesh.result(id)).status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    }
    held = [];
  });

  it("expires all runs at the deadline of the first", async () => {
    const runId = await start(patient, "stuck", { timeout: { seconds: 1n, nanos: 500_000_000 } });
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_EXPIRED);
    const middleId = (await show(runId)).steps[0]!.childRunId;
    expect((await mesh.result(middleId)).status).toBe(RunStatus.RUN_STATUS_EXPIRED);
  });

  it("ends a chain that calls itself without end, and says so", async () => {
    const runId = await start(endless, "x");
    const { status, failure } = await mesh.result(runId);
    expect(status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(failure?.reason).toBe("DEPTH_EXCEEDED");
  });

  it("runs the child's version of the moment when it begins", async () => {
    const method = "acme.pages.v1.Flows/Late";
    const version = (words: string) =>
      mesh.putChain({
        contract: contract(method),
        steps: [{ id: "s", call: score, input: { text: cel("input.text") } }],
        output: { words: cel(words) },
      });
    await version("1");
    const user = "acme.pages.v1.Flows/User";
    await mesh.putChain({
      contract: contract(user),
      steps: [{ id: "s", call: method, input: { text: cel("input.text") } }],
      output: { words: cel("steps.s.output.words") },
    });
    await version("2");
    const runId = await start(user, "x");
    await mesh.result(runId);
    expect((await show((await show(runId)).steps[0]!.childRunId)).run?.chainVersion).toBe(2);
  });
});
