import pc from "picocolors";
import { describe, expect, it } from "vitest";
import { applyEvent, applyNotice, applyReports, describeEvent, drawProgress, progressOfRun } from "./progress.js";

const colors = pc.createColors(false);
const at = (second: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString();

const fresh = () =>
  progressOfRun({
    run: { runId: "r1", method: "a.v1.B/C", status: "RUN_STATUS_RUNNING", acceptedAt: at(0) },
    steps: [
      { stepId: "fetch", method: "x.v1.Y/Z", status: "STEP_STATUS_DISPATCHED", attempt: 1, startedAt: at(0) },
      { stepId: "pick", method: "x.v1.Y/W", status: "STEP_STATUS_PENDING" },
    ],
  });

const story = [
  {
    seq: "1",
    at: at(0),
    kind: "EVENT_KIND_RUN_ACCEPTED",
    moves: [{ stepId: "fetch", status: "STEP_STATUS_DISPATCHED", attempt: 1 }],
  },
  {
    seq: "2",
    at: at(1),
    kind: "EVENT_KIND_ATTEMPT_FAILED",
    stepId: "fetch",
    attempt: 1,
    failure: { reason: "HTTP_STATUS", message: "503" },
  },
  { seq: "3", at: at(2), kind: "EVENT_KIND_STEP_DISPATCHED", stepId: "fetch", attempt: 2 },
  {
    seq: "4",
    at: at(3),
    kind: "EVENT_KIND_STEP_SUCCEEDED",
    stepId: "fetch",
    attempt: 2,
    moves: [{ stepId: "pick", status: "STEP_STATUS_SKIPPED" }],
  },
  { seq: "5", at: at(4), kind: "EVENT_KIND_RUN_ENDED", runStatus: "RUN_STATUS_SUCCEEDED" },
];

describe("the progress of a run", () => {
  it("follows the events to the end", () => {
    const progress = fresh();
    expect(story.map((event) => applyEvent(progress, event))).toEqual([false, false, false, false, true]);
    expect(progress.seq).toBe("5");
    expect(drawProgress(progress, Date.parse(at(9)), colors)).toEqual([
      "a.v1.B/C  r1  SUCCEEDED  4.0 s  2/2 steps",
      " ✓ fetch  SUCCEEDED   3.0 s     attempt 2",
      " - pick   SKIPPED",
    ]);
  });

  it("shows why an attempt failed until the step succeeds", () => {
    const progress = fresh();
    for (const event of story.slice(0, 2)) applyEvent(progress, event);
    expect(drawProgress(progress, Date.parse(at(1)), colors)[1]).toContain("HTTP_STATUS: 503");
  });

  it("gives the same picture when events are folded in that the first picture contains", () => {
    const [once, twice] = [fresh(), fresh()];
    for (const event of story) applyEvent(once, event);
    for (const event of [...story.slice(0, 3), ...story]) applyEvent(twice, event);
    expect(drawProgress(twice, 0, colors)).toEqual(drawProgress(once, 0, colors));
  });

  it("follows holds and undos, and has not ended before its end", () => {
    const progress = fresh();
    const follow = (kind: string, more: object = {}): string => {
      const ended = applyEvent(progress, { kind: `EVENT_KIND_${kind}`, at: at(4), seq: "9", ...more });
      return `${progress.status}${ended ? ", ended" : ""}`;
    };
    expect(follow("RUN_PAUSED", { runStatus: "RUN_STATUS_PAUSED" })).toBe("PAUSED");
    expect(follow("RUN_RESUMED", { runStatus: "RUN_STATUS_RUNNING" })).toBe("RUNNING");
    expect(follow("RUN_COMPENSATING", { runStatus: "RUN_STATUS_FAILED" })).toBe("RUNNING");
    const moves = [{ stepId: "fetch.undo", status: "STEP_STATUS_DISPATCHED", attempt: 1 }];
    expect(follow("STEP_DISPATCHED", { moves })).toBe("RUNNING");
    expect(progress.steps.get("fetch.undo")?.status).toBe("DISPATCHED");
    expect(follow("RUN_ENDED", { runStatus: "RUN_STATUS_FAILED" })).toBe("FAILED, ended");
  });

  it("never draws a line wider than the terminal", () => {
    const progress = fresh();
    applyEvent(progress, { kind: "EVENT_KIND_STEP_FAILED", stepId: "fetch", failure: { message: "x".repeat(300) } });
    for (const line of drawProgress(progress, 0, colors, { width: 40 })) expect(line.length).toBeLessThanOrEqual(40);
  });

  it("never draws more rows than the terminal has, and keeps what is under way", () => {
    const steps = Array.from({ length: 60 }, (_, index) => ({
      stepId: `s${index}`,
      status: index === 50 ? "STEP_STATUS_RUNNING" : index < 50 ? "STEP_STATUS_SUCCEEDED" : "STEP_STATUS_PENDING",
    }));
    const progress = progressOfRun({ run: { runId: "r", status: "RUN_STATUS_RUNNING" }, steps });
    const lines = drawProgress(progress, 0, colors, { width: 80, height: 12 });
    expect(lines.length).toBeLessThan(12);
    expect(lines.join("\n")).toContain("s50");
    expect(lines.at(-1)).toMatch(/and \d+ more steps/);
  });

  it("shows what a handler reports while it runs, and no longer", () => {
    const progress = fresh();
    const report = {
      stepId: "fetch",
      status: "STEP_STATUS_DISPATCHED",
      progress: { percent: 40.4, message: "half-way" },
    };
    applyReports(progress, { steps: [report] });
    expect(drawProgress(progress, 0, colors)[1]).toContain("40 % half-way");
    applyEvent(progress, story[3] ?? {});
    applyReports(progress, { steps: [report] });
    expect(drawProgress(progress, 0, colors)[1]).not.toContain("half-way");
  });

  it("marks what is estimated, and is not at 100 % before the end", () => {
    const progress = fresh();
    const report = (percent: number, estimated: boolean) => ({ stepId: "fetch", progress: { percent, estimated } });
    const running = { stepId: "fetch", kind: "EVENT_KIND_STEP_BOUND", attempt: 1 };
    applyEvent(progress, running);
    applyNotice(progress, { steps: [report(40, true)] });
    const [head, step] = drawProgress(progress, 0, colors);
    expect(head).toContain(" ~20 %");
    expect(step).toContain("~40 %");
    applyNotice(progress, { steps: [report(60, false)] });
    expect(drawProgress(progress, 0, colors).join()).not.toContain("~");
    applyEvent(progress, { kind: "EVENT_KIND_STEP_SUCCEEDED", stepId: "pick" });
    applyNotice(progress, { steps: [report(100, false)] });
    expect(drawProgress(progress, 0, colors)[0]).toContain(" 99 %");
  });

  it("tells one event in one line, whatever the message holds", () => {
    expect(describeEvent(story[1] ?? {})).toBe(`${at(1)}  attempt failed  fetch  HTTP_STATUS: 503`);
    expect(describeEvent({ kind: "EVENT_KIND_STEP_FAILED", failure: { message: "a\nb" } })).toBe(
      "step failed  a\\x0ab",
    );
  });
});
