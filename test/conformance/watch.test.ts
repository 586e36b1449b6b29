/** The rules that hold at every moment, each broken once: what a worker that passes them all never shows. */
import { Beat, CompleteStep, RelayCompletions, type RelayStart, StartStep } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { Tape } from "./tape.js";
import { Watch } from "./watch.js";

const taskQueue = "queue";
const lease = "lease-1";
const start = StartStep.fromPartial({ runId: "run-1", stepId: "step", attempt: 1, lease, reportTo: "c1" });

/** A worker with two slots whose first stream has brought one start. */
function begun() {
  const tape = new Tape();
  const watch = new Watch(tape);
  watch.registered("session-1", new Map([[taskQueue, 2]]));
  watch.opened(1);
  watch.credit(1, { taskQueue, slots: 2, bytes: 1024n * 1024n, deliveries: [] });
  const relayed: RelayStart = { taskQueue, delivery: 7n, start, redelivered: false, headers: {} };
  tape.add(tape.starts, 1, relayed);
  watch.start(1, relayed);
  return { tape, watch, broken: () => watch.breaches.map(({ section }) => section) };
}

const completion = (more: Partial<CompleteStep> = {}): CompleteStep => ({
  ...CompleteStep.fromPartial({ runId: "run-1", stepId: "step", attempt: 1, lease, sessionId: "session-1" }),
  outcome: { $case: "cancelled", value: { message: "" } },
  ...more,
});
const completions = (one: CompleteStep, number = 1n, reportTo = "c1"): RelayCompletions =>
  RelayCompletions.fromPartial({ number, reportTo, batch: { completions: [one] } });

describe("the watch", () => {
  it("has nothing to say about a worker that does everything right", () => {
    const { tape, watch, broken } = begun();
    tape.add(tape.probes, 1, "nonce-1");
    watch.beat(
      Beat.fromPartial({ number: 1n, nonce: "nonce-1", attempts: [{ lease, startedAt: { seconds: 1n, nanos: 0 } }] }),
    );
    watch.completions(1, completions(completion()));
    tape.add(tape.stored, 1, lease);
    watch.ack(1, 7n);
    watch.credit(1, { taskQueue, slots: 1, bytes: 100n, deliveries: [7n] });
    expect(watch.breaches).toEqual([]);
    expect(watch.room(1, taskQueue)).toEqual({ allowed: 2, inHand: 0, credited: true });
    expect(broken()).toEqual([]);
  });

  it("tells of an ack that comes before anything is stored or bound", () => {
    const { watch, broken } = begun();
    watch.ack(1, 7n);
    watch.ack(1, 8n);
    expect(broken()).toEqual(["6.7", "6.7"]);
  });

  it("lets an ack stand for what a claim made of the start", () => {
    const { tape, watch, broken } = begun();
    const request = {
      namespace: "",
      sessionId: "session-1",
      runId: "run-1",
      stepId: "step",
      item: 0,
      attempt: 1,
      lease,
    };
    tape.add(tape.claims, 0, { request, response: { verdict: { $case: "drop", value: "it has ended" } } });
    watch.ack(1, 7n);
    expect(broken()).toEqual([]);
  });

  it("tells of credits beyond the slots, without the bytes of a start, and for what is not in hand", () => {
    const { watch, broken } = begun();
    watch.credit(1, { taskQueue, slots: 1, bytes: 0n, deliveries: [] });
    watch.credit(1, { taskQueue, slots: 1, bytes: 0n, deliveries: [9n] });
    watch.credit(1, { taskQueue: "nobody's", slots: 1, bytes: 0n, deliveries: [] });
    expect(broken()).toEqual(["5.3", "5.3", "5.3", "5.2"]);
    const poor = begun();
    poor.watch.opened(2);
    poor.watch.credit(2, { taskQueue, slots: 1, bytes: 1_000n, deliveries: [] });
    expect(poor.broken()).toEqual(["5.4"]);
  });

  it("tells of completions that are not their start's", () => {
    const { watch, broken } = begun();
    watch.completions(1, completions(completion({ attempt: 2 })));
    watch.completions(1, completions(completion({ lease: "made-up" }), 2n));
    watch.completions(1, completions(completion({ sessionId: "another" }), 3n));
    watch.completions(1, completions(completion({ outcome: undefined }), 4n));
    watch.completions(1, completions(completion(), 5n, "c2"));
    expect(broken()).toEqual(["6.4", "6.4", "6.4", "6.4", "6.5"]);
  });

  it("tells of a number that waits for its answer twice, and of an empty message", () => {
    const { watch, broken } = begun();
    watch.completions(1, completions(completion()));
    watch.completions(1, completions(completion()));
    watch.answered(1, 1n);
    watch.completions(1, completions(completion()));
    watch.completions(1, RelayCompletions.fromPartial({ number: 2n, reportTo: "c1" }));
    expect(broken()).toEqual(["6.5", "6.5"]);
  });

  it("tells of beats whose numbers don't grow, of nonces and leases that nobody gave", () => {
    const { watch, broken } = begun();
    watch.beat(Beat.fromPartial({ number: 2n }));
    watch.beat(Beat.fromPartial({ number: 2n, nonce: "made-up" }));
    watch.beat(Beat.fromPartial({ number: 3n, attempts: [{ lease: "made-up" }] }));
    expect(broken()).toEqual(["4.2", "4.3", "4.4", "4.4"]);
  });
});
