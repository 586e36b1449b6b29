/**
 * Starts and completions that come twice, late or in another order, on a mesh with real servers: a handler may run again, but each step
 * has exactly one recorded result, and what came too late is on record as late.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defineAction } from "@taskmesh/action-sdk";
import {
  CompletionBatch,
  EventKind,
  Payload,
  RunStatus,
  StartBatch,
  type StartStep,
  StepStatus,
} from "@taskmesh/proto";
import { formatAddress, metrics, unaryCall } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { BrokerTap, type Overheard } from "../fixtures/broker-tap.js";
import { completion } from "../fixtures/hostile-bytes.js";
import { countOf, type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { PageActionsService } from "../fixtures/page-actions.js";
import { waitFor } from "../fixtures/process.js";

const method = "acme.pages.v1.PageActions/Score";
const three = "acme.pages.v1.Chains/Three";
const runsCount = 60;
const cel = (value: string) => ({ kind: { $case: "cel" as const, value } });

let mesh: InProcessMesh;
let tap: BrokerTap;
let child: ChildProcess | undefined;
let executions = 0;
let releaseSecond = (): void => {};

const score = defineAction(PageActionsService.score, async ({ text }) => {
  executions += 1;
  if (text.startsWith("second")) await new Promise<void>((resolve) => (releaseSecond = resolve));
  return { words: text.split(/\s+/).length };
});

beforeAll(async () => {
  const intervals = { beatMs: 200, sessionTimeoutMs: 2_000, lapseScanMs: 200, graceMs: 500, unlistedMs: 1_000 };
  const scans = { bindingScanMs: 300, epochPollMs: 200, flushMs: 100, orphanScanMs: 1_000 };
  mesh = await startInProcessMesh({ on: "servers", intervals: { ...intervals, ...scans } });
  tap = await BrokerTap.open(mesh.nats!.url);
});
afterEach(() => {
  child?.kill("SIGKILL");
  child = undefined;
});
afterAll(async () => {
  releaseSecond();
  await tap?.close();
  await mesh?.stop();
});

const startText = (text: string, callable: string): Promise<string> =>
  mesh.start({ method: callable, input: { $case: "json", value: JSON.stringify({ text }) } });

/** Steps "a" to "c", one after another, each with one word more. */
async function putThree(): Promise<void> {
  await mesh.putChain({
    contract: { name: three, input: { text: "string" }, output: { words: "int32" } },
    steps: [
      { id: "a", call: method, input: { text: cel("input.text") } },
      { id: "b", call: method, input: { text: cel("input.text + ' b'") }, needs: ["a"] },
      { id: "c", call: method, input: { text: cel("input.text + ' b c'") }, needs: ["b"] },
    ],
    output: { words: cel("steps.c.output.words") },
  });
}

async function checkThree(runId: string): Promise<void> {
  const result = await mesh.result(runId);
  expect(result.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  expect(result.output?.data?.value).toEqual(Buffer.from([0x08, 3]));
  const succeeded = (await mesh.history(runId)).filter(({ kind }) => kind === EventKind.EVENT_KIND_STEP_SUCCEEDED);
  expect(succeeded.map(({ stepId }) => stepId)).toEqual(["a", "b", "c"]);
}

describe("messages that come again", () => {
  it("while the runs go on, each two times more and out of order, leave one result a step", async () => {
    const workers = [await mesh.serve([score], { slots: 10 }), await mesh.serve([score], { slots: 10 })];
    await putThree();
    const before = executions;
    const seen = new Set<string>();
    let copies = 0;
    let isDone = false;
    // What was heard is sent again in blocks, the newest first, so that copies come before and after what they overtake.
    const repeating = (async () => {
      while (!isDone) {
        const fresh = tap.heard.filter(
          ({ subject, bytes }) => !subject.startsWith("probe.") && !seen.has(keyOf(bytes)),
        );
        for (const { bytes } of fresh) seen.add(keyOf(bytes));
        for (const { subject, bytes } of fresh.reverse()) {
          await tap.publish(subject, bytes, bytes);
          copies += 2;
        }
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
    })();
    const ids = await Promise.all(Array.from({ length: runsCount }, (_, i) => startText(`run${i}`, three)));
    for (const id of ids) await checkThree(id);
    isDone = true;
    await repeating;
    expect(copies).toBeGreaterThan(runsCount);
    // Copies of starts did reach handlers: nothing but the recorded result is promised to be single.
    expect(executions - before).toBeGreaterThan(runsCount * 3);
    await waitFor("the copies to be taken", async () => (await tap.messages("TASKMESH_DONE")) === 0, 30_000, 100);
    for (const id of ids) await checkThree(id);
    await Promise.all(workers.map((worker) => worker.stop()));
  });

  it("after their runs have ended, last first, change nothing", async () => {
    const worker = await mesh.serve([score], { slots: 10 });
    await putThree();
    const from = tap.heard.length;
    const ids = await Promise.all(Array.from({ length: 10 }, (_, i) => startText(`ended${i}`, three)));
    for (const id of ids) await checkThree(id);
    const histories = await Promise.all(ids.map((id) => mesh.history(id)));
    const messages = tap.heard.slice(from).filter(({ subject }) => !subject.startsWith("probe."));
    const of = (prefix: string): Overheard[] => messages.filter(({ subject }) => subject.startsWith(prefix)).reverse();
    expect(of("start.").length).toBeGreaterThanOrEqual(ids.length * 3);
    const now = (): number => [...metrics.completionsStale.series.values()].reduce((sum, { value }) => sum + value, 0);
    const stale = now();
    for (const { subject, bytes } of [...of("done."), ...of("start.")]) await tap.publish(subject, bytes);
    await waitFor("the copies to be counted", () => now() - stale >= ids.length * 3, 30_000);
    await waitFor("the streams to be empty", async () => (await tap.messages("TASKMESH_DONE")) === 0, 30_000, 100);
    const live = await startText("live", three);
    await checkThree(live);
    expect(await Promise.all(ids.map((id) => mesh.history(id)))).toEqual(histories);
    await worker.stop();
  });
});

const keyOf = (bytes: Buffer): string => bytes.toString("base64");

interface Paused {
  process: ChildProcess;
  output(): string;
  gate: string;
}

/** A worker in a process of its own, registered, whose handler holds until its gate opens. */
async function spawnWorker(): Promise<Paused> {
  const gate = join(mkdtempSync(join(tmpdir(), "duplicates-")), "open");
  const main = join(import.meta.dirname, "../fixtures/sdk-worker-main.ts");
  const started = spawn(process.execPath, ["--import", "tsx", "--conditions=@taskmesh/source", main], {
    env: { ...process.env, TASKMESH_ADDRESS: formatAddress(mesh.address), TASKMESH_SLOTS: "3", TEST_GATE: gate },
    stdio: ["ignore", "pipe", "pipe"],
  });
  child = started;
  let output = "";
  for (const stream of [started.stdout, started.stderr]) {
    stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  }
  await waitFor("the worker to register", () => output.includes("registered "), 40_000);
  return { process: started, output: () => output, gate };
}

describe("a worker that is paused for longer than its session", () => {
  it("loses its attempt to another; its report is recorded as late and decides nothing", async () => {
    const two = "acme.pages.v1.Chains/Two";
    const paused = await spawnWorker();
    await mesh.putChain({
      contract: { name: two, input: { text: "string" }, output: { first: "int32", second: "int32" } },
      steps: [
        { id: "first", call: method, input: { text: cel("input.text") } },
        { id: "second", call: method, input: { text: cel("'second ' + string(steps.first.output.words)") } },
      ],
      output: { first: cel("steps.first.output.words"), second: cel("steps.second.output.words") },
    });
    const runId = await startText("hold on", two);
    await waitFor("the attempt to begin", () => paused.output().includes("running hold attempt 1"), 30_000);
    const firstStep = async () => {
      const request = { namespace: "default", runId, omitPayloads: true };
      return (await unaryCall(mesh.runs, mesh.runs.getRun, request)).steps[0]!;
    };
    await waitFor("the attempt to be bound", async () => (await firstStep()).status === StepStatus.STEP_STATUS_RUNNING);
    paused.process.kill("SIGSTOP");
    await mesh.serve([score]);
    const starts = (): StartStep[] =>
      tap
        .on("start.")
        .filter(({ bytes }) => bytes.includes(runId))
        .flatMap(({ bytes }) => StartBatch.decode(bytes).starts.filter((one) => one.runId === runId));
    await waitFor("the second step to begin", () => starts().some(({ stepId }) => stepId === "second"), 40_000);
    const old = starts().find((one) => one.stepId === "first");
    expect(old?.attempt).toBe(1);
    // The next attempt may be handed to the paused worker again, whose carrier does not know yet; then it is lost like the first.
    const won = (await firstStep()).attempt;
    expect(won).toBeGreaterThan(1);
    expect((await firstStep()).lostAttempts).toBe(won - 1);
    // What the paused worker would have said, as it would have said it, three times.
    const late = metrics.completionsLate.at().value;
    const words = PageActionsService.score.responseSerialize({ words: 99 });
    const output = Payload.fromPartial({ data: { $case: "inline", value: words } });
    const { stepId, attempt, lease } = old!;
    const report = completion({ runId, stepId, attempt, lease, outcome: { $case: "output", value: output } });
    const bytes = CompletionBatch.encode({ completions: [report] }).finish();
    await tap.publish(`done.${old!.namespaceId}.${old!.reportTo}`, bytes, bytes, bytes);
    await waitFor("the late reports", () => metrics.completionsLate.at().value >= late + 3, 20_000);
    // It wakes up, and finishes what it believes to have.
    writeFileSync(paused.gate, "");
    paused.process.kill("SIGCONT");
    releaseSecond();
    const result = await mesh.result(runId);
    expect(result.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(result.output?.data?.value).toEqual(Buffer.from([0x08, 2, 0x10, 2]));
    const history = await mesh.history(runId);
    const succeeded = history.filter(({ kind }) => kind === EventKind.EVENT_KIND_STEP_SUCCEEDED);
    expect(succeeded.map((event) => [event.stepId, event.attempt])).toEqual([
      ["first", won],
      ["second", expect.any(Number)],
    ]);
    expect(countOf(history, EventKind.EVENT_KIND_ATTEMPT_LOST)).toBeGreaterThanOrEqual(won - 1);
    const onRecord = history.filter(({ kind }) => kind === EventKind.EVENT_KIND_COMPLETION_LATE);
    expect(onRecord.length).toBeGreaterThanOrEqual(3);
    expect(onRecord.filter((event) => event.stepId === "first" && event.attempt === 1).length).toBeGreaterThanOrEqual(
      3,
    );
    expect(onRecord.filter((event) => event.stepId === "first" && event.attempt >= won)).toEqual([]);
    expect(paused.process.exitCode).toBeNull();
  });
});
