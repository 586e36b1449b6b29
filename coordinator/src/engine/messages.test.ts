import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { planOf, startMs, startRun, value } from "./plan-fixture.js";
import type { RunEvent } from "./run-event.js";
import { keptMax, keysMax, RunStatus, StepStatus } from "./run-state.js";

const signal = (mailbox = "m") => ({ kind: "signal" as const, mailbox });
const message = (content: string, key = "", mailbox = "m"): RunEvent => ({
  kind: "message",
  mailbox,
  name: mailbox,
  key,
  value: value(content),
});

describe("a message for a step that waits", () => {
  it("ends the step with its value, in one history row, and starts what needs it", () => {
    const bench = startRun(planOf({ ask: { wait: signal() }, after: { needs: ["ask"] } }));
    expect(bench.step("ask")).toMatchObject({ status: StepStatus.STEP_STATUS_WAITING, wait: { endsAtMs: 0 } });
    bench.apply(message("yes", "k1"));
    expect(bench.last.records.map(({ kind, note, payload }) => [kind, note, payload])).toEqual([
      [EventKind.EVENT_KIND_SIGNAL_RECEIVED, "m", undefined],
      [EventKind.EVENT_KIND_STEP_SUCCEEDED, undefined, value("yes")],
    ]);
    expect(bench.effectsOf("dispatch").map(({ step }) => step.id)).toEqual(["after"]);
    expect(bench.run.messages).toEqual({ kept: [], keys: ["k1"] });
  });

  it("goes to the first of several steps, and to each one", () => {
    const bench = startRun(planOf({ a: { wait: signal() }, b: { wait: signal() } }));
    bench.apply(message("one"));
    expect([bench.step("a").status, bench.step("b").status]).toEqual([
      StepStatus.STEP_STATUS_SUCCEEDED,
      StepStatus.STEP_STATUS_WAITING,
    ]);
    bench.apply(message("two"));
    expect(bench.run.outputs.map((output) => output?.bytes?.toString())).toEqual(
      ["one", "two"].map((text) => new TextEncoder().encode(text).toString()),
    );
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("comes too late when the step's limit is over: EXPIRED, and refused from then on", () => {
    const bench = startRun(planOf({ ask: { wait: signal(), scheduleToCloseMs: 1_000 }, other: {} }));
    expect(bench.run.wakeupAtMs).toBe(startMs + 1_000);
    bench.wakeAt(startMs + 1_000);
    expect(bench.step("ask").status).toBe(StepStatus.STEP_STATUS_EXPIRED);
    expect(bench.run.failure?.reason).toBe("SCHEDULE_TO_CLOSE_TIMEOUT");
    expect(bench.apply(message("yes")).why).toBe("run-ended");
  });
});

describe("a message that comes before its step waits", () => {
  it("is kept in its own history row, and taken in order of arrival", () => {
    const plan = planOf({ first: {}, a: { needs: ["first"], wait: signal() }, b: { needs: ["a"], wait: signal() } });
    const bench = startRun(plan);
    bench.apply(message("one", "k1"));
    expect(bench.last.records.map(({ payload }) => payload)).toEqual([value("one")]);
    bench.apply(message("two", "k2"));
    bench.apply(message("elsewhere", "k3", "nobody"));
    expect(bench.last.why).toBe("unknown-step");
    bench.complete("first");
    expect(bench.run.outputs.slice(1)).toEqual([value("one"), value("two")]);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(bench.run.messages).toEqual({ kept: [], keys: ["k1", "k2"] });
  });

  it("changes nothing a second time, whether kept or taken", () => {
    const bench = startRun(planOf({ first: {}, ask: { needs: ["first"], wait: signal() }, more: { needs: ["ask"] } }));
    bench.apply(message("one", "k1"));
    expect(bench.apply(message("one", "k1")).why).toBe("duplicate");
    bench.complete("first");
    expect(bench.apply(message("one", "k1")).why).toBe("duplicate");
    expect(bench.apply(message("two", "k2")).why).toBe("not-awaited");
  });

  it("is refused when too many are kept, and keys are forgotten after many more", () => {
    const bench = startRun(planOf({ first: {}, ask: { needs: ["first"], wait: signal() } }));
    for (let n = 0; n < keptMax; n++) expect(bench.apply(message(`${n}`)).verdict).toBe("changed");
    expect(bench.apply(message("more")).why).toBe("mailbox-full");
    const plan = planOf(
      Object.fromEntries(Array.from({ length: keysMax + 2 }, (_, n) => [`s${n}`, { wait: signal() }])),
    );
    const other = startRun(plan);
    for (let n = 0; n < keysMax + 1; n++) other.apply(message(`${n}`, `k${n}`));
    expect(other.run.messages?.keys).toHaveLength(keysMax);
    expect(other.apply(message("again", "k1")).why).toBe("duplicate");
    expect(other.apply(message("again", "k0")).verdict).toBe("changed");
  });

  it("is refused once the run is being cancelled", () => {
    const bench = startRun(planOf({ first: {}, ask: { needs: ["first"], wait: signal() } }));
    bench.apply({ kind: "cancel", reason: "enough" });
    expect(bench.apply(message("one")).why).toBe("cancelling");
  });
});

describe("an answer to a callback", () => {
  const callback = { kind: "callback" as const, mailbox: "callback:ask" };
  const answer = (content: string) => message(content, "", "callback:ask");

  it("is taken once, and the run has a secret to make its token with", () => {
    const bench = startRun(planOf({ ask: { wait: callback }, after: { needs: ["ask"] } }));
    expect(bench.run.secret).toMatch(/^lease-\d+lease-\d+$/);
    expect(startRun(planOf({ ask: {} })).run.secret).toBeUndefined();
    bench.apply(answer("one"));
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_CALLBACK_RECEIVED, EventKind.EVENT_KIND_STEP_SUCCEEDED]);
    expect(bench.apply(answer("two")).why).toBe("not-awaited");
  });

  it("is kept, once, when it comes before its step waits", () => {
    const bench = startRun(planOf({ first: {}, ask: { needs: ["first"], wait: callback } }));
    bench.apply(answer("one"));
    expect(bench.apply(answer("two")).why).toBe("duplicate");
    bench.complete("first");
    expect(bench.run.outputs[1]).toEqual(value("one"));
  });
});
