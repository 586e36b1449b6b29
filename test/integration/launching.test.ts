/** Launches: what steps name at run time, chains given as data among it, over both stores and both carriers. The chains are those of the guide. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { defineAction } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import { type GetRunResponse, RunStatus, StepStatus } from "@taskmesh/proto";
import { unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileProtos } from "../fixtures/compile-protos.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { entriesOf } from "../fixtures/method-entries.js";
import { waitFor } from "../fixtures/process.js";
import { ask, holdToDocument, startTestGateway } from "../fixtures/rest-gateway.js";
import { guideBlock, guideChain } from "../fixtures/trip-actions.js";
import { compileProgram } from "../guides/word-program.js";

const guide = "launching.md";
const descriptors = compileProtos({ "acme/words/v1/words.proto": guideBlock(guide, "proto", "service WordActions") });
const entry = entriesOf(descriptors, "acme.words.v1.WordActions");
const startChain = "taskmesh.launch.v1.LaunchActions/StartChain";
const startAction = "taskmesh.launch.v1.LaunchActions/StartAction";
const launch = "taskmesh.launch.v1.Launches/Launch";
const hello = "hello = Greet name=$input.name\nloud = Shout text=$hello.text";

it("the guide shows the interpreter that is tested", () => {
  const source = readFileSync(join(import.meta.dirname, "../guides/word-program.ts"), "utf8");
  expect(guideBlock(guide, "ts", "compileProgram")).toBe(source);
});

describe.each(["embedded", "servers"] as const)("launches on %s", (on) => {
  let mesh: InProcessMesh;
  let gateway: Gateway;
  const held: (() => void)[] = [];

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
    gateway = await startTestGateway([mesh.address.port]);
    await mesh.serve(
      [
        defineAction(entry<{ program: string }, { document: string }>("Compile"), ({ program }) => ({
          document: compileProgram(program),
        })),
        defineAction(entry<{ name: string }, { text: string }>("Greet"), async ({ name }, { signal }) => {
          if (name === "stuck") {
            await new Promise<void>((resolve) => {
              held.push(resolve);
              signal.addEventListener("abort", () => resolve());
            });
          }
          return { text: `hello, ${name}` };
        }),
        defineAction(entry<{ text: string }, { text: string }>("Shout"), ({ text }) => ({ text: text.toUpperCase() })),
      ],
      { descriptors },
    );
    for (const rpc of ["Calls/Call", "Programs/Run"]) await mesh.putChain(guideChain(guide, `acme.words.v1.${rpc}`));
    await holdToDocument(gateway);
  }, 240_000);
  afterAll(async () => {
    await gateway?.stop();
    await mesh?.stop();
  }, 30_000);

  const start = (method: string, input: object, more: object = {}) =>
    mesh.start({ method, input: { $case: "json", value: JSON.stringify(input) }, ...more });
  const show = (runId: string): Promise<GetRunResponse> =>
    unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: true });
  const output = async (runId: string) => (await ask(gateway, `/api/v1/runs/${runId}/result?wait=30s`)).json;

  it("run an action that the input names, as a run below the step", async () => {
    const runId = await start("acme.words.v1.Calls/Call", { action: "acme.words.v1.WordActions/Shout", text: "ahoy" });
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    const { text, run } = (await output(runId)).output;
    expect(text).toBe("AHOY");
    const [step] = (await show(runId)).steps;
    expect(step).toMatchObject({ method: startAction, childRunId: run, attempt: 1 });
    expect((await show(run)).run).toMatchObject({
      method: "acme.words.v1.WordActions/Shout",
      ...{ parentRunId: runId, parentStepId: "call", depth: 1 },
    });
  }, 120_000);

  it("interpret a program: one step makes a chain of it, the next one runs it", async () => {
    const program = { program: hello, name: "Ada" };
    const first = await output(await start("acme.words.v1.Programs/Run", program));
    expect(first).toMatchObject({ status: "RUN_STATUS_SUCCEEDED", output: { text: "HELLO, ADA" } });
    const given = (await show(first.output.run)).run!;
    expect(given.method).toMatch(/^taskmesh\.given\.v1\.Chains\/Program_[0-9a-f]{16}$/);
    // Equal data is one chain, which nobody finds by its name.
    const second = await output(await start("acme.words.v1.Programs/Run", { ...program, name: "Bea" }));
    expect((await show(second.output.run)).run).toMatchObject({
      method: given.method,
      chainVersion: given.chainVersion,
    });
    const listed = await ask(gateway, "/api/v1/chains");
    expect(listed.json.chains.map(({ name }: { name: string }) => name)).toEqual([
      "acme.words.v1.Calls/Call",
      "acme.words.v1.Programs/Run",
      launch,
    ]);
    expect(await start(given.method, {}).catch(String)).toContain("no action or chain");
  }, 120_000);

  it.each([
    [
      "a program with a mistake",
      { program: "hello = Greet name=$input.name\nloud = Shout text=$helo.text", name: "x" },
      "CHAIN_INVALID",
      'did you mean "hello"?',
    ],
    ["a text that is no chain", { program: "", name: "x" }, "CHAIN_INVALID", "step"],
    ["a program of unknown verbs", { program: "a = Dance name=x", name: "x" }, "CHAIN_INVALID", "Dance"],
  ])("fail for good with %s", async (_, input, reason, message) => {
    const { failure } = await mesh.result(await start("acme.words.v1.Programs/Run", input));
    expect(failure).toMatchObject({ reason, retryable: false });
    expect(failure!.message).toContain(message);
  });

  it.each([
    [startAction, { action: "acme.words.v1.WordActions/Sing" }, "METHOD_NOT_FOUND"],
    [startAction, { action: "acme.words.v1.Calls/Call" }, "METHOD_NOT_FOUND"],
    [startChain, { chain: "acme.words.v1.WordActions/Shout" }, "METHOD_NOT_FOUND"],
    [startAction, { action: "acme.words.v1.WordActions/Shout", input: { txt: "x" } }, "INPUT_INVALID"],
  ])("by themselves refuse what can't run: %s %j", async (method, input, reason) => {
    expect(await mesh.result(await start(method, input))).toMatchObject({
      status: RunStatus.RUN_STATUS_FAILED,
      failure: { reason },
    });
  });

  it("name one thing only", async () => {
    const both = { chain: "a.v1.B/C", document: "x" };
    const answer = await ask(gateway, `/v1/${startChain}`, { body: both });
    expect(answer).toMatchObject({ status: 400, json: { reason: "INPUT_INVALID" } });
  });

  it("are a run of the mesh's own chain where one asks for that, also of a chain that is stored nowhere", async () => {
    const plain = await ask(gateway, `/v1/${launch}`, {
      body: { action: "acme.words.v1.WordActions/Shout", input: { text: "ahoy" } },
    });
    expect(plain).toMatchObject({ status: 200, json: { output: { text: "AHOY" } } });
    const launched = (await show(plain.json.runId)).run!;
    expect(launched.method).toBe("acme.words.v1.WordActions/Shout");
    const parent = await show(launched.parentRunId);
    expect(parent.run!.method).toBe(launch);
    expect(parent.steps.map(({ stepId, status }) => [stepId, status])).toEqual([
      ["start_action", StepStatus.STEP_STATUS_SUCCEEDED],
      ["start_chain", StepStatus.STEP_STATUS_SKIPPED],
    ]);
    const spec = JSON.parse(compileProgram(hello));
    const given = await ask(gateway, `/v1/${launch}`, {
      body: { spec, input: { name: "Eve" }, labels: { team: "x" } },
    });
    expect(given.json).toMatchObject({ output: { text: "HELLO, EVE" } });
    expect((await show(given.json.runId)).run!.labels).toEqual({ team: "x" });
  }, 120_000);

  it("end as soon as what is detached has begun, which then goes on by itself", async () => {
    const input = { action: "acme.words.v1.WordActions/Greet", input: { name: "stuck" }, detached: true };
    const runId = await start(startAction, input);
    const { runId: child } = (await output(runId)).output;
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    await waitFor("the handler", () => held.length > 0, 30_000);
    held.splice(0).forEach((release) => {
      release();
    });
    expect((await output(child)).output).toEqual({ text: "hello, stuck" });
  }, 240_000);

  it("pass a cancel down", async () => {
    const runId = await start(launch, {
      document: compileProgram("a = Greet name=$input.name"),
      input: { name: "stuck" },
    });
    await waitFor("the handler", () => held.length > 0, 30_000);
    held.splice(0);
    await unaryCall(mesh.runs, mesh.runs.cancelRun, { namespace: "default", runId, reason: "enough", actor: "" });
    const child = (await show(runId)).steps.find(({ childRunId }) => childRunId !== "")!.childRunId;
    for (const id of [runId, child]) expect((await mesh.result(id)).status).toBe(RunStatus.RUN_STATUS_CANCELLED);
  }, 240_000);

  it("belong to the mesh: nobody stores a chain under their names", async () => {
    const contract = { name: launch, input: {}, output: {} };
    const steps = [{ id: "a", wait: { duration: { kind: { $case: "literal" as const, value: "1s" } } } }];
    await expect(mesh.putChain({ contract, steps })).rejects.toThrow("is reserved");
  });
});
