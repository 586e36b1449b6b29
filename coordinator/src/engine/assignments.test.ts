import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import type { AssignmentTerms } from "./plan.js";
import { planOf, startMs, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import type { AssignmentAct, RunEvent } from "./run-event.js";
import { RunStatus, StepStatus } from "./run-state.js";

const terms: AssignmentTerms = { title: "Approve", instructions: "", assignees: ["ada"], groups: [] };
const human = { kind: "human" as const, read: () => terms };
const by = (person: string, act: AssignmentAct): RunEvent => ({ kind: "assignment", stepId: "ask", person, act });
const complete = (person: string): RunEvent => by(person, { kind: "complete", value: value("form") });

describe("an assignment", () => {
  const start = () => startRun(planOf({ ask: { wait: human, scheduleToCloseMs: 5_000 }, after: { needs: ["ask"] } }));

  it("opens with its step's wait, and what the step asks goes to the inbox in the same commit", () => {
    const bench = start();
    expect(bench.step("ask")).toMatchObject({ status: StepStatus.STEP_STATUS_WAITING, wait: { endsAtMs: 0 } });
    expect(bench.effectsOf("assign")).toMatchObject([{ terms, openedAtMs: startMs, dueAtMs: startMs + 5_000 }]);
  });

  it("is completed by anybody while nobody has claimed it", () => {
    const bench = start();
    bench.apply(complete("ada"));
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_ASSIGNMENT_COMPLETED, EventKind.EVENT_KIND_STEP_SUCCEEDED]);
    expect(bench.effectsOf("unassign")).toHaveLength(1);
    expect(bench.effectsOf("give-back")).toHaveLength(0);
    expect(bench.effectsOf("dispatch").map(({ step }) => step.id)).toEqual(["after"]);
    expect(bench.apply(complete("ada")).why).toBe("not-awaited");
  });

  it("H1: is one person's from the claim to the release, and the claim is stored", () => {
    const bench = start();
    bench.apply(by("ada", { kind: "claim" }));
    expect(bench.effectsOf("take")).toMatchObject([{ person: "ada" }]);
    expect(bench.apply(by("ada", { kind: "claim" })).why).toBe("duplicate");
    for (const act of [{ kind: "claim" }, { kind: "release" }, { kind: "complete", value: value("x") }] as const)
      expect(bench.apply(by("bob", act)).why).toBe("claimed");
    expect(bench.apply(by("bob", { kind: "comment", text: "hm" })).records[0]).toMatchObject({ note: "bob: hm" });
    expect(decodeRunState(encodeRunState(bench.run), startMs).steps[0]).toEqual(bench.step("ask"));
    bench.apply(by("ada", { kind: "release" }));
    expect(bench.effectsOf("give-back")).toHaveLength(1);
    expect(bench.apply(by("bob", { kind: "release" })).why).toBe("duplicate");
    bench.apply(by("bob", { kind: "claim" }));
    bench.apply(complete("bob"));
    expect(bench.effectsOf("unassign").length + bench.effectsOf("give-back").length).toBe(2);
    expect(bench.run.outputs[0]).toEqual(value("form"));
  });

  it("H2: closes with its step: by the limit, and by a cancel", () => {
    const expired = start();
    expired.apply(by("ada", { kind: "claim" }));
    expired.wakeAt(startMs + 5_000);
    expect(expired.step("ask").status).toBe(StepStatus.STEP_STATUS_EXPIRED);
    expect(expired.run.status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(expired.effectsOf("unassign").length + expired.effectsOf("give-back").length).toBe(2);
    const cancelled = start();
    cancelled.apply({ kind: "cancel", reason: "enough" });
    expect(cancelled.effectsOf("unassign")).toHaveLength(1);
    expect(cancelled.apply(complete("ada")).why).toBe("run-ended");
  });

  it("is none of other steps", () => {
    const bench = startRun(planOf({ ask: {}, other: { wait: human, needs: ["ask"] } }));
    expect(bench.apply(complete("ada")).why).toBe("unknown-step");
    expect(bench.apply({ ...complete("ada"), stepId: "other" } as RunEvent).why).toBe("not-awaited");
  });
});
