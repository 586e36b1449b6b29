import { runAction } from "@taskmesh/action-sdk/testing";
import { describe, expect, it } from "vitest";
import { builtinDescriptors } from "../gen/descriptors.js";
import { DelayRequest, type DelayResponse } from "../gen/taskmesh/time/v1/time.js";
import { timeActions } from "./action.js";

const [delay] = timeActions();
const options = { descriptors: builtinDescriptors };
const of = (seconds: bigint, nanos = 0) => DelayRequest.fromPartial({ duration: { seconds, nanos } });

describe("Delay", () => {
  it("waits no less than it was asked to, and reports progress", async () => {
    const { output, progress } = await runAction(delay!, of(0n, 120_000_000), options);
    const { waited } = output as DelayResponse;
    expect(Number(waited!.seconds) * 1e9 + waited!.nanos).toBeGreaterThanOrEqual(120_000_000);
    expect(progress.at(-1)?.percent).toBe(100);
  });

  it("ends at once when it is cancelled, also before it began", async () => {
    const stop = new AbortController();
    const running = runAction(delay!, of(3_600n), { ...options, signal: stop.signal });
    stop.abort();
    expect(await running).toMatchObject({ cancelled: {} });
    expect(await runAction(delay!, of(3_600n), { ...options, signal: AbortSignal.abort() })).toMatchObject({
      cancelled: {},
    });
  });

  it("takes nothing, and an hour at most", async () => {
    expect(await runAction(delay!, of(0n), options)).toMatchObject({ output: { waited: { seconds: 0n } } });
    for (const input of [of(3_600n, 1), of(-1n), DelayRequest.fromPartial({})]) {
      expect((await runAction(delay!, input, options)).failure).toMatchObject({
        reason: "INPUT_INVALID",
        retryable: false,
      });
    }
  });
});
