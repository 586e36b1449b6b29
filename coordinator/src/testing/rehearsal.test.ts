import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { failsForGood, failsForNow, hangs, inTurn, rehearse, type Stub, stub, takes } from "./index.js";

const descriptors = [
  compileProtos({
    "acme/pages/v1/pages.proto": `syntax = "proto3"; package acme.pages.v1;
      import "buf/validate/validate.proto";
      service PageActions { rpc Score(ScoreRequest) returns (ScoreResponse); rpc Warn(ScoreResponse) returns (ScoreRequest); }
      message ScoreRequest { string text = 1; }
      message ScoreResponse { int32 words = 1 [(buf.validate.field).int32.gte = 0]; }`,
  }),
];
const score = (handler: Parameters<typeof stub>[1]): Stub => stub("acme.pages.v1.PageActions/Score", handler as never);
const words = (count: number) => ({ words: count });

const chain = (steps: string, more = "") => `contract:
  name: acme.pages.v1.Pages/Check
  input: { text: string }
  output: { words: int32 }
steps:
${steps}
output: { words: steps.score.output.words }
${more}`;
const scoring = (settings = "") =>
  chain(`  - { id: score, call: acme.pages.v1.PageActions/Score, input: { text: input.text }${settings} }`);
const rehearsed = (settings: string, ...answers: Parameters<typeof inTurn>) =>
  rehearse(scoring(settings), { descriptors, input: { text: "a b" }, actions: [score(inTurn(...answers) as never)] });

describe("a rehearsal", () => {
  it("runs the chain with stubs, and tells what each step was given and gave", async () => {
    const text = chain(`  - { id: score, call: acme.pages.v1.PageActions/Score, input: { text: input.text } }
  - id: warn
    call: acme.pages.v1.PageActions/Warn
    input: { words: steps.score.output.words }
    when: steps.score.output.words > 2`);
    const seen: unknown[] = [];
    const count = score((input: { text?: string }) => {
      seen.push(input);
      return words(input.text!.split(" ").length);
    });
    const short = await rehearse(text, { descriptors, input: { text: "a b" }, actions: [count] });
    expect(short).toMatchObject({ status: "SUCCEEDED", path: ["score"], output: { words: 2 }, elapsedMs: 0 });
    expect(short.steps["warn"]).toMatchObject({ status: "SKIPPED", attempts: 0, inputs: [] });
    expect(seen).toEqual([{ text: "a b" }]);
    const warned = stub("acme.pages.v1.PageActions/Warn", () => ({ text: "many" }));
    const long = await rehearse(text, { descriptors, input: { text: "a b c" }, actions: [count, warned] });
    expect(long.path).toEqual(["score", "warn"]);
    expect(long.steps["warn"]).toMatchObject({ inputs: [{ words: 3 }], output: { text: "many" }, attempts: 1 });
  });

  it("undoes what was done, and says so in its path", async () => {
    const undo = "compensate: { call: acme.pages.v1.PageActions/Warn, input: { words: steps.score.output.words } }";
    const text = chain(`  - { id: score, call: acme.pages.v1.PageActions/Score, input: { text: input.text }, ${undo} }
  - { id: again, call: acme.pages.v1.PageActions/Score, input: { text: "'more'" }, needs: [score] }`);
    const warned = stub("acme.pages.v1.PageActions/Warn", () => ({ text: "gone" }));
    const actions = (...answers: Parameters<typeof inTurn>) => [score(inTurn(...answers) as never), warned];
    const about = { descriptors, input: { text: "a" } };
    const failed = await rehearse(text, { ...about, actions: actions(words(7), failsForGood("NO_MORE")) });
    expect(failed).toMatchObject({ status: "FAILED", failure: { reason: "NO_MORE" } });
    expect(failed.path).toEqual(["score", "again", "score.undo"]);
    expect(failed.steps["score.undo"]).toMatchObject({ status: "SUCCEEDED", inputs: [{ words: 7 }] });
    const done = await rehearse(text, { ...about, actions: actions(words(7), words(8)) });
    expect(Object.keys(done.steps)).toEqual(["score", "again"]);
  });

  it("skips the time that attempts take and retries wait", async () => {
    const retry = ", retry: { exponential: { initial: 1h, factor: 2, cap: 9h }, jitter: 0, max_attempts: 5 }";
    const run = await rehearsed(retry, takes(60_000, failsForNow("BUSY")), failsForNow("BUSY"), words(1));
    expect(run).toMatchObject({ status: "SUCCEEDED", elapsedMs: 60_000 + 3 * 3_600_000 });
    expect(run.steps["score"]).toMatchObject({ attempts: 3, failure: { reason: "BUSY" }, endedMs: run.elapsedMs });
  });

  it.each([
    ["a failure that is final", "", failsForGood("GONE", "the page is gone"), "GONE", 0],
    ["an error that a stub throws", ", retry: { max_attempts: 1 }", undefined, "HANDLER_ERROR", 0],
    [
      "a handler that hangs",
      ", start_to_close: 20s, retry: { max_attempts: 1 }",
      hangs,
      "START_TO_CLOSE_TIMEOUT",
      20_000,
    ],
    [
      "a handler that takes too long",
      ", start_to_close: 20s, retry: { max_attempts: 1 }",
      takes(20_001, words(1)),
      "START_TO_CLOSE_TIMEOUT",
      20_000,
    ],
    ["a step that takes too long over all", ", schedule_to_close: 5s", hangs, "SCHEDULE_TO_CLOSE_TIMEOUT", 5_000],
    ["an output that breaks the contract", "", { words: -1 }, "breaks the contract", 0],
  ])("ends as the mesh would by %s", async (_, settings, answer, reason, elapsedMs) => {
    const handler = answer === undefined ? () => Promise.reject(new Error("no")) : () => answer;
    const trial = rehearse(scoring(settings), { descriptors, input: {}, actions: [score(handler as never)] });
    if (reason.includes(" ")) return expect(trial).rejects.toThrow(reason);
    expect(await trial).toMatchObject({ status: "FAILED", failure: { reason }, elapsedMs });
  });

  it("sleeps a month, and takes signals when they come", async () => {
    const text = chain(
      `  - { id: settle, wait: { duration: 720h } }
  - { id: score, needs: [settle], signal: { output: { words: int32 } }, schedule_to_close: 24h }`,
      "run_timeout: 2000h",
    );
    const day = 24 * 3_600_000;
    const answered = await rehearse(text, {
      descriptors,
      signals: [{ name: "score", message: words(7), afterMs: 30 * day + 5_000 }],
    });
    expect(answered).toMatchObject({
      status: "SUCCEEDED",
      output: words(7),
      path: ["settle", "score"],
      elapsedMs: 30 * day + 5_000,
    });
    const early = await rehearse(text, { descriptors, signals: [{ name: "score", message: words(8) }] });
    expect(early).toMatchObject({ output: words(8), elapsedMs: 30 * day });
    expect(await rehearse(text, { descriptors })).toMatchObject({ status: "FAILED", elapsedMs: 31 * day });
  });

  it("rehearses the chains that the chain calls with the same stubs, or takes a stub for them", async () => {
    const inner = scoring().replaceAll("Pages/Check", "Pages/Inner");
    const outer = chain("  - { id: score, call: acme.pages.v1.Pages/Inner, input: { text: input.text } }");
    const options = { descriptors, chains: [inner], input: { text: "a" } };
    const run = await rehearse(outer, { ...options, actions: [score(() => takes(7_000, words(4)))] });
    expect(run).toMatchObject({ output: words(4), elapsedMs: 7_000, path: ["score"] });
    expect(run.steps["score"]?.children).toMatchObject([{ status: "SUCCEEDED", path: ["score"], output: words(4) }]);
    const failed = await rehearse(outer, { ...options, actions: [score(() => failsForGood("GONE"))] });
    expect(failed).toMatchObject({ status: "FAILED", failure: { reason: "GONE" } });
    const stubbed = await rehearse(outer, { ...options, actions: [stub("acme.pages.v1.Pages/Inner", () => words(9))] });
    expect(stubbed).toMatchObject({ output: words(9), steps: { score: { children: [] } } });
  });

  it("cancels when it is told to, and gives handlers the time to stop", async () => {
    const run = await rehearse(scoring(), {
      descriptors,
      actions: [score(() => hangs)],
      cancelAfterMs: 1_000,
    });
    expect(run).toMatchObject({ status: "CANCELLED", elapsedMs: 11_000 });
  });

  it("refuses what the mesh would refuse, and a call without a stub", async () => {
    const wrong = scoring().replace("text: input.text", "txt: input.text");
    await expect(rehearse(wrong, { descriptors })).rejects.toThrow('score, txt: ScoreRequest has no field "txt"');
    await expect(rehearse("steps: 5", { descriptors })).rejects.toThrow("1:8 a list is expected");
    await expect(rehearse(scoring(), { descriptors, input: { txt: "a" } })).rejects.toThrow("the input breaks");
    await expect(rehearse(scoring(), { descriptors })).rejects.toThrow("PageActions/Score, which has no stub");
    const unknown = rehearse(scoring(), { descriptors, signals: [{ name: "x" }] });
    await expect(unknown).rejects.toThrow(/no stub|no step of the chain waits for/);
  });

  it("says what the example of the guide says", () => {
    const guide = readFileSync(join(import.meta.dirname, "../../../docs/guides/testing-chains.md"), "utf8");
    const example = readFileSync(join(import.meta.dirname, "../../../test/guides/page-report.test.ts"), "utf8");
    expect(guide).toContain(example);
  });
});
