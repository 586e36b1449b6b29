import { type CompleteStep, Payload, StartStep } from "@taskmesh/proto";
import { createLogger, type StartDelivery, sha256 } from "@taskmesh/runtime";
import { describe, expect, it, vi } from "vitest";
import { PageActionsService } from "../../test/fixtures/page-actions.js";
import { Attempts } from "./attempt.js";
import { Completions } from "./completions.js";
import { AttemptContext } from "./context.js";
import { type AnyAction, defineAction } from "./define.js";
import type { AttemptAborted } from "./errors.js";
import { type Outcome, perform } from "./perform.js";

const score = defineAction(PageActionsService.score, ({ text }) => ({ words: text.length }));
const bytes = PageActionsService.score.requestSerialize({ text: "abc" });
const pass = { input: () => undefined, output: () => undefined };

function attemptsFor(
  claim: (start: StartStep) => Promise<{ start: StartStep } | { drop: string } | undefined>,
  action: AnyAction = score,
) {
  const completions = new Completions(() => {});
  const reported: CompleteStep[] = [];
  const unconfirmed: (() => void)[] = [];
  completions.use({
    complete: (_reportTo, completion, stored) => {
      reported.push(completion);
      unconfirmed.push(stored);
    },
  });
  const none = () => Promise.reject(new Error("nothing is stored elsewhere"));
  const attempts = new Attempts({
    namespace: "default",
    attemptsMax: 10,
    actions: new Map([[score.method, { action, checks: pass, taskQueue: "q" } as never]]),
    sessionId: () => "s1",
    claim,
    fetch: none,
    store: none,
    send: none,
    completions,
    log: createLogger("test", { level: "silent" }),
  });
  const confirm = (): void => {
    for (const stored of unconfirmed.splice(0)) stored();
  };
  return { attempts, reported, confirm };
}

const startOf = (lease: string, text = "abc"): StartStep => {
  const bytes = PageActionsService.score.requestSerialize({ text });
  const data = { $case: "inline" as const, value: bytes };
  const input = Payload.fromPartial({ contract: "c", sizeBytes: BigInt(bytes.length), sha256: sha256(bytes), data });
  return StartStep.fromPartial({ runId: "r1", stepId: "call", attempt: 1, lease, method: score.method, input });
};

function deliver(
  attempts: Attempts,
  redelivered: boolean,
  start = startOf("L1"),
): { acked: boolean; released: boolean } {
  const state = { acked: false, released: false };
  const delivery: StartDelivery = {
    taskQueue: "q",
    start,
    redelivered,
    ack: () => {
      state.acked = true;
    },
    release: () => {
      state.released = true;
    },
  };
  attempts.onStart(delivery);
  return state;
}

const tick = () => new Promise((resolve) => setImmediate(resolve));

describe("a start that may have been delivered before", () => {
  it("runs under the lease that its claim gave, and under no other", async () => {
    const { attempts, reported } = attemptsFor(async (start) => ({ start: { ...start, attempt: 2, lease: "L2" } }));
    deliver(attempts, true);
    await tick();
    expect(reported.map(({ lease, attempt }) => [lease, attempt])).toEqual([["L2", 2]]);
    attempts.close();
  });

  it("is acked when it means nothing any more, and left to the carrier when nobody answered", async () => {
    const dropped = attemptsFor(async () => ({ drop: "the run has ended" }));
    expect(deliver(dropped.attempts, true)).toEqual({ acked: false, released: false });
    await tick();
    const state = deliver(dropped.attempts, true);
    await tick();
    expect([state.acked, dropped.reported]).toEqual([true, []]);
    const unanswered = attemptsFor(async () => undefined);
    const left = deliver(unanswered.attempts, true);
    await tick();
    expect([left.acked, unanswered.reported, unanswered.attempts.size]).toEqual([false, [], 0]);
  });

  it("takes no slot while the completion of its attempt waits to be confirmed, and is the one to be acked then", async () => {
    const { attempts, reported, confirm } = attemptsFor(() => Promise.reject(new Error("nobody asked")));
    const first = deliver(attempts, false);
    expect(first).toEqual({ acked: false, released: true });
    const again = deliver(attempts, true);
    expect(again).toEqual({ acked: false, released: true });
    confirm();
    expect([again.acked, attempts.size, reported.length]).toEqual([true, 0, 1]);
    attempts.close();
  });

  it("is not claimed at its first delivery", async () => {
    const { attempts, reported } = attemptsFor(() => Promise.reject(new Error("nobody asked")));
    deliver(attempts, false);
    await tick();
    expect(reported.map(({ lease }) => lease)).toEqual(["L1"]);
    attempts.close();
  });
});

describe("an attempt whose handler asks for more time", () => {
  it("is in the next beat, however young, with what it may take in all, and is not aborted at the old limit", async () => {
    const codes: (string | undefined)[] = [];
    let release = (): void => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const handler = defineAction(PageActionsService.score, async ({ text }, { extendTimeout, signal }) => {
      if (text === "longer") extendTimeout(60_000);
      const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      await Promise.race([released, aborted]);
      codes.push(`${text} ${(signal.reason as AttemptAborted | undefined)?.code}`);
      // The other's limit was the same and is over now: the clock has looked at both.
      if (text !== "longer") setTimeout(release, 0);
      return { words: 1 };
    });
    const { attempts, reported } = attemptsFor(() => Promise.reject(new Error("nobody asked")), handler);
    deliver(attempts, false, { ...startOf("L1", "longer"), startToCloseMs: 150 });
    deliver(attempts, false, { ...startOf("L2", "as it is"), startToCloseMs: 150 });
    const [beat, ...others] = attempts.beats(2_500);
    expect([beat?.lease, others]).toEqual(["L1", []]);
    expect(beat?.startToCloseMs).toBeGreaterThanOrEqual(60_000);
    await vi.waitFor(() => expect(reported).toHaveLength(2), { timeout: 30_000 });
    expect(codes).toEqual(["as it is TIMED_OUT", "longer undefined"]);
    attempts.close();
  });
});

describe("an output that its contract refuses", () => {
  it("is reported as OUTPUT_INVALID, for good, and never leaves", () => {
    const facts = { attempt: 1, lease: "L", runId: "r", stepId: "s", item: 0, method: score.method, namespace: "n" };
    const context = new AttemptContext({ ...facts, deadlineAtMs: Number.POSITIVE_INFINITY }, {});
    const outcomes: Outcome[] = [];
    perform(score, { ...pass, output: () => "words: too few" }, bytes, context, (outcome) => outcomes.push(outcome));
    expect(outcomes).toMatchObject([{ kind: "failure", failure: { reason: "OUTPUT_INVALID", retryable: false } }]);
  });
});
