import { describe, expect, it } from "vitest";
import { PageActionsService, pageDescriptors } from "../../test/fixtures/page-actions.js";
import { defineAction } from "./define.js";
import { fail } from "./errors.js";
import { runAction } from "./testing.js";

const count = (text: string): number => text.split(/\s+/).length;
const score = defineAction(PageActionsService.score, async ({ text }) => ({ words: count(text) }));
const guarded = defineAction(PageActionsService.guarded, async ({ text }) => ({ words: count(text) }));
const options = { descriptors: pageDescriptors };
const scoring = (answer: unknown) => defineAction(PageActionsService.score, async () => answer as { words: number });

describe("runAction", () => {
  it("answers with the output as the mesh would deliver it", async () => {
    const result = await runAction(score, { text: "a b" }, options);
    expect(result.output?.words).toBe(2);
    expect(result).toMatchObject({ logs: [], progress: [] });
    expect(result.failure).toBeUndefined();
  });

  it("captures logs and every progress report, and gives the context its identity", async () => {
    const chatty = defineAction(PageActionsService.score, async ({ text }, context) => {
      context.log.info("counting", { size: text.length });
      context.progress(50, "half");
      context.progress(100);
      expect(context).toMatchObject({ attempt: 3, runId: "R", stepId: "S", idempotencyKey: "R/S/4", namespace: "n" });
      expect(context.trace.headers()).toEqual({ traceparent: "t" });
      return { words: 1 };
    });
    const { logs, progress } = await runAction(
      chatty,
      { text: "abc" },
      { attempt: 3, runId: "R", stepId: "S", item: 4, namespace: "n", traceHeaders: { traceparent: "t" } },
    );
    expect(logs).toEqual([{ level: "info", message: "counting", fields: { size: 3 } }]);
    expect(progress).toEqual([
      { percent: 50, message: "half" },
      { percent: 100, message: "" },
    ]);
  });

  it("reports a thrown error as retryable, with the stack in the log alone", async () => {
    const { failure, logs } = await runAction(
      defineAction(PageActionsService.score, async (): Promise<{ words: number }> => {
        throw new Error("boom");
      }),
      { text: "" },
    );
    expect(failure).toMatchObject({ reason: "HANDLER_ERROR", message: "boom", retryable: true });
    expect(String(logs[0]?.fields["error"])).toMatch(/^Error: boom\n\s+at /);
  });

  it("reports a handler that throws before its promise, and an ActionFailure as typed", async () => {
    const sync = defineAction(PageActionsService.score, (): { words: number } => {
      throw fail.retryable("RATE_LIMITED", "later");
    });
    expect((await runAction(sync, { text: "" })).failure).toMatchObject({ reason: "RATE_LIMITED", retryable: true });
  });

  it("holds the input against the rules of the .proto before the handler runs", async () => {
    expect((await runAction(guarded, { text: "ab" }, options)).output?.words).toBe(1);
    const { failure } = await runAction(guarded, { text: "a" }, options);
    expect(failure).toMatchObject({ reason: "INPUT_INVALID", retryable: false });
    expect(failure?.message).toMatch(/text.*at least 2 characters/);
  });

  it.each([
    ["a text for a number", { words: "many" }],
    ["a fraction for a whole number", { words: 1.5 }],
    ["a number out of range", { words: 2 ** 31 }],
    ["nothing", undefined],
    ["null", null],
  ])("refuses an output with %s", async (_what, answer) => {
    const { failure, output } = await runAction(scoring(answer), { text: "" }, options);
    expect(output).toBeUndefined();
    expect(failure).toMatchObject({ reason: "OUTPUT_INVALID", retryable: false });
  });

  it("cancels through the signal: a handler that throws is cancelled, one that returns has its result", async () => {
    const abort = new AbortController();
    const waits = defineAction(PageActionsService.score, async (_input, { signal }): Promise<{ words: number }> => {
      abort.abort();
      signal.throwIfAborted();
      return { words: 1 };
    });
    expect((await runAction(waits, { text: "" }, { signal: abort.signal })).cancelled?.message).toMatch(/cancelled/);
    const returns = defineAction(PageActionsService.score, async (_input, { signal }) => ({
      words: signal.aborted ? 7 : 0,
    }));
    expect((await runAction(returns, { text: "" }, { signal: AbortSignal.abort() })).output?.words).toBe(7);
  });

  it("aborts the signal when the attempt's time is over", async () => {
    const slow = defineAction(PageActionsService.score, async (_input, { signal, remainingMs }) => {
      expect(remainingMs()).toBeLessThanOrEqual(20);
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      return { words: 3 };
    });
    expect((await runAction(slow, { text: "" }, { startToCloseMs: 20 })).output?.words).toBe(3);
  });

  it("lets a handler run on that asks for more time than it has", async () => {
    let release = (): void => {};
    const old = new Promise<void>((resolve) => {
      release = resolve;
    });
    const slow = defineAction(PageActionsService.score, async (_input, { signal, extendTimeout }) => {
      extendTimeout(60_000);
      setTimeout(release, 60);
      await old;
      return { words: signal.aborted ? 0 : 4 };
    });
    expect((await runAction(slow, { text: "" }, { startToCloseMs: 20 })).output?.words).toBe(4);
  });

  it("takes base64 descriptors, and refuses what are none or lack the rpc", async () => {
    const base64 = Buffer.from(pageDescriptors).toString("base64");
    expect((await runAction(score, { text: "a" }, { descriptors: base64 })).output?.words).toBe(1);
    for (const [descriptors, problem] of [
      ["§", /not base64/],
      [new Uint8Array([255]), /not an encoded google.protobuf.FileDescriptorSet/],
      [new Uint8Array(), /hold no file/],
    ] as const) {
      await expect(runAction(score, { text: "" }, { descriptors })).rejects.toThrow(problem);
    }
    const other = { ...score, method: "acme.pages.v1.PageActions/Nothing" };
    await expect(runAction(other, { text: "" }, options)).rejects.toThrow(/have no rpc .*Nothing/);
  });
});
