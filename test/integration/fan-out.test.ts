/** Fan-out from the chain's text to its result: ordered outputs, tolerated failures, items by page, cancels and lost attempts. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type ActionContext, defineAction, fail } from "@taskmesh/action-sdk";
import { builtinActions, builtinConfig, builtinDescriptors } from "@taskmesh/actions";
import type { Gateway } from "@taskmesh/gateway";
import { type ChainSpec, RunStatus, StepStatus } from "@taskmesh/proto";
import { parseChainDocument, unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { chainOfGuide } from "../fixtures/guide.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { PageActionsService } from "../fixtures/page-actions.js";
import { ask, holdToDocument, startTestGateway } from "../fixtures/rest-gateway.js";

const bound = { timeout: 20_000, interval: 50 };
const words = `
contract:
  name: acme.pages.v1.Chains/Words
  input: { texts: repeated string, prefix: string }
  output: { words: repeated int32, total: int32 }
steps:
  - id: score
    call: acme.pages.v1.PageActions/Score
    each: { items: input.texts, max_parallel: 200, tolerated_share: 0.5 }
    input: { text: "input.prefix + each.value" }
    retry: { fixed: { delay: 10ms }, max_attempts: 2 }
  - id: again
    call: acme.pages.v1.PageActions/Score
    each: { items: steps.score.output }
    input: { text: "string(each.value.words) + ' ' + string(each.index)" }
output:
  words: steps.score.output.map(one, one.words)
  total: "size(steps.again.output)"
`;
const byKey = `
contract:
  name: acme.pages.v1.Chains/ByKey
  input: { texts: "map<string, string>" }
  output: { words: "map<string, int32>" , first: int32 }
steps:
  - id: score
    call: acme.pages.v1.PageActions/Score
    each: { entries: input.texts }
    input: { text: "each.key + ' ' + each.value" }
output:
  first: steps.score.output['a'].words
`;

describe.each(["servers", "embedded"] as const)("fan-out on %s", (on) => {
  let mesh: InProcessMesh;
  let gateway: Gateway;
  const held = new Set<() => void>();

  const handler = async ({ text }: { text: string }, context: ActionContext): Promise<{ words: number }> => {
    if (text.startsWith("bad")) throw fail.final("BAD_TEXT", "not this one");
    if (text.startsWith("flaky") && context.attempt === 1) throw fail.retryable("TRY_AGAIN", "once more");
    if (text.startsWith("hold")) {
      await new Promise<void>((resolve) => {
        held.add(resolve);
        context.signal.addEventListener("abort", () => resolve());
      });
      context.signal.throwIfAborted();
    }
    return { words: text.split(" ").length };
  };
  const put = async (text: string): Promise<void> => {
    const { spec, problems } = parseChainDocument(text);
    expect(problems).toEqual([]);
    await mesh.putChain(spec as never);
  };
  const start = (method: string, input: unknown): Promise<string> =>
    mesh.start({ method: `acme.pages.v1.Chains/${method}`, input: { $case: "json", value: JSON.stringify(input) } });
  const outputOf = async (runId: string) => (await ask(gateway, `/api/v1/runs/${runId}`)).json.output;

  beforeAll(async () => {
    mesh = await startInProcessMesh({
      on,
      intervals: { beatMs: 200, flushMs: 100, epochPollMs: 200, unlistedMs: 600, bindingScanMs: 200 },
    });
    gateway = await startTestGateway([mesh.coordinator.listener.address.port]);
    await holdToDocument(gateway);
    await mesh.serve([defineAction(PageActionsService.score, handler)], { slots: 50 });
    await put(words);
    await put(byKey);
  });
  afterAll(async () => {
    await gateway?.stop();
    await mesh?.stop();
  });

  it("runs every item and gives the outputs in the items' order, whatever the order of their ends", async () => {
    const texts = Array.from({ length: 1_234 }, (_, n) => `${n % 7 === 0 ? "flaky " : ""}${"w ".repeat(n % 5)}x`);
    const runId = await start("Words", { texts, prefix: "" });
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    const output = await outputOf(runId);
    expect(output.words).toEqual(texts.map((text) => text.split(" ").length));
    expect(output.total).toBe(1_234);
    const path = `/api/v1/runs/${runId}/steps/score/items`;
    const seen: number[] = [];
    let token = "";
    do {
      const { json } = await ask(gateway, `${path}?pageSize=500${token === "" ? "" : `&pageToken=${token}`}`);
      expect(json.counts).toMatchObject({ total: 1_234, succeeded: 1_234 });
      for (const item of json.items) {
        seen.push(item.item ?? 0);
        expect(item.status).toBe("STEP_STATUS_SUCCEEDED");
        expect(item.attempt).toBe((item.item ?? 0) % 7 === 0 ? 2 : 1);
        expect(item.output).toEqual({ words: texts[item.item ?? 0]!.split(" ").length });
      }
      token = json.nextPageToken;
    } while (token !== "");
    expect(seen).toEqual(texts.map((_, n) => n));
    const { json } = await ask(gateway, `/api/v1/runs/${runId}`);
    expect(json.steps[0]).toMatchObject({ status: "STEP_STATUS_SUCCEEDED", items: { total: 1_234, succeeded: 1_234 } });
    const history = await mesh.history(runId);
    expect(history.map(({ seq }) => Number(seq))).toEqual(history.map((_, index) => index + 1));
  });

  it("goes over a map by key, and over nothing", async () => {
    const keyed = await start("ByKey", { texts: { b: "x y z", a: "x" } });
    expect((await mesh.result(keyed)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect((await outputOf(keyed)).first).toBe(2);
    const { json } = await ask(gateway, `/api/v1/runs/${keyed}/steps/score/items`);
    expect(json.items.map((item: { key: string }) => item.key)).toEqual(["a", "b"]);
    const empty = await start("Words", { texts: [], prefix: "" });
    expect((await mesh.result(empty)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("leaves tolerated failures out of the output, and fails beyond", async () => {
    const some = await start("Words", { texts: ["bad", "a b", "bad", "c"], prefix: "" });
    expect((await mesh.result(some)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect((await outputOf(some)).words).toEqual([2, 1]);
    const { json } = await ask(gateway, `/api/v1/runs/${some}/steps/score/items`);
    expect(json.items[2]).toMatchObject({ status: "STEP_STATUS_FAILED", failure: { reason: "BAD_TEXT" } });
    const many = await mesh.result(await start("Words", { texts: ["bad", "bad", "bad", "c"], prefix: "" }));
    expect(many.status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(many.failure).toMatchObject({ reason: "ITEMS_FAILED", cause: { cause: { reason: "BAD_TEXT" } } });
  });

  it("reads lists and inputs that travel by reference", async () => {
    const texts = Array.from({ length: 600 }, (_, n) => `${n} ${"y".repeat(1_000)}`);
    const runId = await start("Words", { texts, prefix: "a " });
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect((await outputOf(runId)).words).toEqual(texts.map(() => 3));
  });

  it("gives items whose worker vanished to another attempt, and a cancelled run stops", async () => {
    held.clear();
    const runId = await start("Words", { texts: ["hold 1", "hold 2", "done"], prefix: "" });
    const running = async () => {
      const request = { namespace: "default", runId, stepId: "score", pageSize: 0, pageToken: "", omitPayloads: false };
      const { items } = await unaryCall(mesh.runs, mesh.runs.listItems, request);
      expect(items.map(({ status }) => status)).toEqual([
        StepStatus.STEP_STATUS_RUNNING,
        StepStatus.STEP_STATUS_RUNNING,
        StepStatus.STEP_STATUS_SUCCEEDED,
      ]);
      return items;
    };
    await vi.waitFor(running, bound);
    const { workers } = await unaryCall(mesh.registry, mesh.registry.listWorkers, { namespace: "default" });
    const [first, second] = mesh.coordinator.registry.sessions.find(workers[0]!.sessionId)!.listed;
    for (const lease of [first!, second!]) {
      for (const item of [0, 1]) {
        const ref = { runId, stepId: "score", item, attempt: 1, lease };
        await mesh.coordinator.engine.intake.lose(ref, "the test says so");
      }
    }
    const again = await vi.waitFor(async () => {
      const items = await running();
      expect(items.map(({ attempt }) => attempt)).toEqual([2, 2, 1]);
      return items;
    }, bound);
    expect(again.map(({ lostAttempts }) => lostAttempts)).toEqual([1, 1, 0]);
    await unaryCall(mesh.runs, mesh.runs.cancelRun, { namespace: "default", runId, reason: "enough", actor: "" });
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_CANCELLED);
  });

  it("runs the guide's example", async () => {
    await mesh.serve(builtinActions(builtinConfig({})), { descriptors: builtinDescriptors });
    const guide = readFileSync(join(import.meta.dirname, "../../docs/guides/fan-out.md"), "utf8");
    await put(/```yaml\n([\s\S]*?)```/.exec(guide)![1]!);
    const input = { $case: "json" as const, value: JSON.stringify({ texts: ["  Some TEXT ", "Another"] }) };
    const runId = await mesh.start({ method: "acme.guides.v1.Texts/Clean", input });
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(await outputOf(runId)).toEqual({ texts: ["some text", "another"], count: 2 });
  });

  const pages = { pages: [{ texts: ["A", "B"] }, {}, { texts: ["C"] }] };
  const guided = async (rpc: string, input: unknown): Promise<string> => {
    await mesh.putChain(chainOfGuide("fan-out.md", rpc));
    const { name } = chainOfGuide("fan-out.md", rpc).contract!;
    return mesh.start({ method: name, input: { $case: "json", value: JSON.stringify(input) } });
  };
  const itemsOf = async (runId: string, stepId: string) =>
    (await ask(gateway, `/api/v1/runs/${runId}/steps/${stepId}/items`)).json.items;

  it("goes over a chain: each item is a run that names its place", async () => {
    const runId = await guided("CleanPages", pages);
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(await outputOf(runId)).toEqual({ counts: [2, 0, 1] });
    const items = await itemsOf(runId, "pages");
    const ids = items.map(({ childRunId }: { childRunId: string }) => childRunId);
    const third = (await ask(gateway, `/api/v1/runs/${ids[2]}`)).json;
    expect(third.run).toMatchObject({
      method: "acme.guides.v1.Texts/Clean",
      parentRunId: runId,
      parentStepId: "pages",
    });
    expect(third.run.parentItem).toBe(2);
    expect(third.output).toEqual({ texts: ["c"], count: 1 });
    expect(new Set(ids).size).toBe(3);
  });

  it("goes within a fan-out: a list of lists, and a run for each outer item", async () => {
    const runId = await guided("CleanAll", { pages: ["A B", "C"] });
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(await outputOf(runId)).toEqual({ words: ["0 A", "0 B"], counts: [2, 1] });
    const [first] = await itemsOf(runId, "clean");
    expect(first).toMatchObject({ status: "STEP_STATUS_SUCCEEDED" });
    expect([first.input, first.output]).toEqual([undefined, undefined]);
    const { json } = await ask(gateway, `/api/v1/runs/${first.childRunId}`);
    expect(json.run).toMatchObject({ method: "acme.guides.v1.Pages/CleanAll.clean", parentRunId: runId });
    expect([json.input, json.output]).toEqual([undefined, undefined]);
    const inner = await itemsOf(first.childRunId, "clean");
    expect(inner.map(({ output }: { output: unknown }) => output)).toEqual([{ text: "0 A" }, { text: "0 B" }]);
    const events = await mesh.history(first.childRunId);
    expect(events.length).toBeGreaterThan(3);
  });

  it("asks each of several people, and goes on without one who does not answer", async () => {
    const runId = await guided("Ask", { reviewers: ["ann", "bob"], title: "the plan" });
    const open = await vi.waitFor(async () => {
      const { json } = await ask(gateway, "/api/v1/assignments");
      expect(json.assignments).toHaveLength(2);
      return json.assignments as { runId: string; title: string; assignees: string[] }[];
    }, bound);
    expect(open[0]).toMatchObject({ title: "Review: the plan", stepId: "ask" });
    const mine = open.find(({ assignees }) => assignees.includes("bob"))!;
    const body = { person: "bob", output: { approved: true } };
    expect((await ask(gateway, `/api/v1/assignments/${mine.runId}/ask/complete`, { body })).status).toBe(200);
    const other = open.find(({ assignees }) => assignees.includes("ann"))!;
    const about = { namespace: "default", runId: other.runId, reason: "on leave", actor: "" };
    await unaryCall(mesh.runs, mesh.runs.cancelRun, about);
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(await outputOf(runId)).toEqual({ votes: [true] });
    const items = await itemsOf(runId, "ask");
    expect(
      items.map(({ output, failure }: Record<string, unknown>) => [output, (failure as { reason?: string })?.reason]),
    ).toEqual([
      [undefined, "CANCELLED"],
      [{ approved: true }, undefined],
    ]);
  });

  it("stops the runs of its items when it is cancelled", async () => {
    await put(`
contract: { name: acme.pages.v1.Lists/One, input: { text: string }, output: { words: int32 } }
steps:
  - { id: score, call: acme.pages.v1.PageActions/Score, input: { text: input.text } }
output: { words: steps.score.output.words }
`);
    await put(`
contract: { name: acme.pages.v1.Lists/Each, input: { texts: repeated string }, output: { count: int32 } }
steps:
  - id: all
    call: acme.pages.v1.Lists/One
    each: { items: input.texts, max_parallel: 2 }
    input: { text: each.value }
output: { count: size(steps.all.output) }
`);
    const value = JSON.stringify({ texts: ["hold", "hold", "hold"] });
    const runId = await mesh.start({ method: "acme.pages.v1.Lists/Each", input: { $case: "json", value } });
    const ids = await vi.waitFor(async () => {
      const begun = (await itemsOf(runId, "all")).flatMap(({ childRunId = "" }) => (childRunId ? [childRunId] : []));
      expect(begun).toHaveLength(2);
      return begun as string[];
    }, bound);
    await unaryCall(mesh.runs, mesh.runs.cancelRun, { namespace: "default", runId, reason: "enough", actor: "" });
    for (const id of [runId, ...ids]) expect((await mesh.result(id)).status).toBe(RunStatus.RUN_STATUS_CANCELLED);
  });

  it("is checked when the chain is saved", async () => {
    const problemsOf = async (each: string, input = "each.value"): Promise<string[]> => {
      const text = words
        .replace(/each: \{ items: input.texts.*\}/, `each: ${each}`)
        .replace("input.prefix + each.value", input);
      const { spec } = parseChainDocument(text);
      const request = { namespace: "default", spec: spec as ChainSpec };
      const { problems } = await unaryCall(mesh.chains, mesh.chains.validateChain, request);
      return problems.map(({ path, message }) => `${path}: ${message}`);
    };
    expect(await problemsOf("{ items: input.texts }")).toEqual([]);
    expect(await problemsOf("{ items: input.prefix }")).toEqual([
      "steps[0].each.items: each.items is a list, and the expression gives string",
    ]);
    expect(await problemsOf("{ entries: input.texts }")).toContain(
      "steps[0].each.entries: each.entries is a map with string keys, and the expression gives list<string>; write items",
    );
    expect(await problemsOf("{ items: input.texts, max_parallel: 2000 }")).toEqual([
      "steps[0].each.max_parallel: max_parallel 2000 is out of range",
    ]);
    expect(await problemsOf("{ max_parallel: 2 }")).toEqual(["steps[0].each: the fan-out goes over nothing"]);
    expect(await problemsOf("{ items: input.texts }", "each.key")).toEqual([
      'steps[0].input.text: each has no field "key"',
    ]);
    const nested = "{ items: input.texts, each: { items: \"each.value.split(' ')\" } }";
    // The outputs of such a step are a list of lists for everybody who reads them.
    const readers = (await problemsOf(nested, "each.outer.value + each.value")).map((problem) => problem.split(":")[0]);
    expect(readers.sort()).toEqual(["output.words", "steps[1].input.text"]);
    expect(await problemsOf(nested, "each.outer.key")).toContain('steps[0].input.text: each.outer has no field "key"');
    expect(await problemsOf("{ items: input.texts }", "each.index")).toEqual([
      "steps[0].input.text: ScoreRequest.text is string, and the expression gives int",
    ]);
  });
});
