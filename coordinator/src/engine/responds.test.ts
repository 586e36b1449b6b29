import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { evaluated, planOf, startRun, value } from "./plan-fixture.js";
import { answerToSignal } from "./responds.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import type { RunEvent } from "./run-event.js";
import { RunStatus, StepStatus } from "./run-state.js";

const respond = (to?: number) => ({ wait: { kind: "respond" as const, ...(to === undefined ? {} : { to }) } });
const asked = { wait: { kind: "signal" as const, mailbox: "m", answered: true as const } };
const message = (content: string, key: string): RunEvent => ({
  kind: "message",
  mailbox: "m",
  name: "m",
  key,
  value: value(content),
});
const text = (bytes: Uint8Array | undefined): string => new TextDecoder().decode(bytes);

describe("a step that answers the run's caller", () => {
  const plan = planOf({ fast: {}, answer: { ...respond(), needs: ["fast"] }, slow: { needs: ["answer"] } });

  it("tells whoever waits, and the run goes on", () => {
    const bench = startRun(plan);
    bench.complete("fast");
    expect(bench.effectsOf("answered")).toHaveLength(1);
    expect(bench.kinds()).toContain(EventKind.EVENT_KIND_RUN_RESPONDED);
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_RUNNING, answered: 1 });
    expect(bench.step("slow").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
    expect(decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs).answered).toBe(1);
  });

  it("has said what the run puts out: what the chain's output gives is not asked", () => {
    const bench = startRun(plan);
    bench.complete("fast");
    bench.complete("slow");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(text(bench.last.records.at(-1)!.payload!.bytes)).toBe("input of answer");
  });

  it("stays the answer when the rest fails", () => {
    const bench = startRun(plan);
    bench.complete("fast");
    bench.fail("slow");
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_FAILED, answered: 1 });
    expect(text(bench.run.outputs[1]!.bytes)).toBe("input of answer");
  });

  it("counts once: a later one changes nothing", () => {
    const bench = startRun(
      planOf({ one: respond(), pause: {}, two: { ...respond(), needs: ["pause"] }, rest: { needs: ["two"] } }),
    );
    bench.complete("pause");
    expect(bench.run.answered).toBe(0);
    expect(bench.records.filter(({ kind }) => kind === EventKind.EVENT_KIND_RUN_RESPONDED)).toHaveLength(1);
    expect(bench.effects.filter(({ kind }) => kind === "answered")).toHaveLength(1);
  });

  it.each(["an operator", "its own rule"])("counts too where %s gave the answer", (who) => {
    const caught =
      who === "its own rule" ? { catches: [{ reasons: [], bindOutput: () => evaluated(new Uint8Array([7])) }] } : {};
    const bindInput = () => ({ kind: "failed", error: { reason: "EXPRESSION_FAILED", message: "no" } }) as const;
    const broken = planOf(
      { answer: { ...respond(), bindInput, ...caught }, slow: { needs: ["answer"] } },
      { brokenTtlMs: 9_000 },
    );
    const bench = startRun(broken);
    const given = value("given");
    if (who === "an operator")
      bench.apply({
        kind: "operate",
        operation: { kind: "skip", step: "answer", output: given },
        by: "ada",
        reason: "",
      });
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_RUNNING, answered: 0 });
    expect(bench.effects.filter(({ kind }) => kind === "answered")).toHaveLength(1);
    bench.complete("slow");
    expect(bench.records.at(-1)!.payload).toEqual(bench.run.outputs[0]);
  });

  it("tells a parent too, and again whenever the effects are derived anew", () => {
    const bench = startRun(plan, { parent: { runId: "p", stepId: "s", depth: 1 } });
    bench.complete("fast");
    expect(bench.effectsOf("tell-parent")).toHaveLength(1);
    bench.apply({ kind: "redispatch", why: "a coordinator lapsed", beforeMs: 0 });
    expect(bench.effectsOf("tell-parent")).toHaveLength(1);
    bench.apply({ kind: "redispatch", why: "the carrier lost its messages", beforeMs: 0, startsOnly: true });
    expect(bench.effectsOf("tell-parent")).toHaveLength(0);
  });
});

describe("a step that answers a signal", () => {
  const plan = planOf({ ask: asked, work: { needs: ["ask"] }, told: { ...respond(0), needs: ["work"] } });

  it("answers the sender whose message was taken, by its key", () => {
    const bench = startRun(plan);
    expect(answerToSignal(bench.run, plan, "k1")).toEqual({ kind: "never" });
    bench.apply(message("how much?", "k1"));
    expect(answerToSignal(bench.run, plan, "k1")).toEqual({ kind: "pending" });
    bench.complete("work");
    expect(bench.records.map(({ kind }) => kind)).toContain(EventKind.EVENT_KIND_SIGNAL_ANSWERED);
    expect(answerToSignal(bench.run, plan, "k1")).toEqual({ kind: "answered", step: 2 });
    const stored = decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs);
    expect(answerToSignal({ ...stored, status: bench.run.status }, plan, "k1")).toEqual({ kind: "answered", step: 2 });
    expect(answerToSignal(bench.run, plan, "k2")).toEqual({ kind: "never" });
  });

  it("answers one that came before its step waited", () => {
    const late = planOf({ first: {}, ask: { ...asked, needs: ["first"] }, told: { ...respond(1), needs: ["ask"] } });
    const bench = startRun(late);
    bench.apply(message("early", "k1"));
    expect(answerToSignal(bench.run, late, "k1")).toEqual({ kind: "pending" });
    bench.complete("first");
    expect(answerToSignal(bench.run, late, "k1")).toEqual({ kind: "answered", step: 2 });
  });

  it("says so when no answer will come", () => {
    const bench = startRun(plan);
    bench.apply(message("how much?", "k1"));
    bench.apply({ kind: "cancel", reason: "closed" });
    bench.wakeAt(bench.nowMs + 60_000);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    expect(answerToSignal(bench.run, plan, "k1")).toEqual({ kind: "never" });
  });

  it("stays with the first answer, though another one comes in the same millisecond from a step before it", () => {
    const both = planOf({
      ask: asked,
      slow: { needs: ["ask"] },
      late: { ...respond(0), needs: ["slow"] },
      told: { ...respond(0), needs: ["ask"] },
    });
    const bench = startRun(both);
    bench.apply(message("how much?", "k1"));
    expect(answerToSignal(bench.run, both, "k1")).toEqual({ kind: "answered", step: 3 });
    bench.complete("slow");
    expect(bench.step("late").endedAtMs).toBe(bench.step("told").endedAtMs);
    const stored = decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs);
    expect(answerToSignal({ ...stored, status: bench.run.status }, both, "k1")).toEqual({ kind: "answered", step: 3 });
    expect(bench.records.filter(({ kind }) => kind === EventKind.EVENT_KIND_SIGNAL_ANSWERED)).toHaveLength(1);
  });

  it("gives each of several senders the answer to their own", () => {
    const two = planOf({
      a: asked,
      b: asked,
      slow: { needs: ["b"] },
      forB: { ...respond(1), needs: ["slow"] },
      forA: { ...respond(0), needs: ["a"] },
    });
    const bench = startRun(two);
    bench.apply(message("one", "k1"));
    bench.apply(message("two", "k2"));
    expect(answerToSignal(bench.run, two, "k1")).toEqual({ kind: "answered", step: 4 });
    expect(answerToSignal(bench.run, two, "k2")).toEqual({ kind: "pending" });
    bench.complete("slow");
    expect(answerToSignal(bench.run, two, "k2")).toEqual({ kind: "answered", step: 3 });
    expect(bench.apply(message("one", "k1")).why).toBe("run-ended");
  });
});
