import { CompleteStep } from "@taskmesh/proto";
import { describe, expect, it, vi } from "vitest";
import { Completions } from "./completions.js";
import { keptBytesMax } from "./confirmed-log.js";

/** A carrier that keeps what it is given and answers when told. */
class Held {
  sent: { lease: string; completion: CompleteStep; stored: (error?: Error) => void }[] = [];
  complete(_reportTo: string, completion: CompleteStep, stored: (error?: Error) => void): void {
    this.sent.push({ lease: completion.lease, completion, stored });
  }
  leases = (): string[] => this.sent.map(({ lease }) => lease);
  confirmAll(): void {
    for (const { stored } of this.sent.splice(0)) stored();
  }
}

const completion = (lease: string, bytes: number): CompleteStep => {
  const output = { data: { $case: "inline" as const, value: Buffer.alloc(bytes, lease) } };
  return CompleteStep.fromPartial({ lease, runId: `run of ${lease}`, outcome: { $case: "output", value: output } });
};

function setUp() {
  const errors: string[] = [];
  const completions = new Completions((error) => errors.push(error.message));
  const carrier = new Held();
  completions.use(carrier);
  const stored: string[] = [];
  const add = (lease: string, bytes = 10): void =>
    completions.add("c1", completion(lease, bytes), bytes, () => stored.push(lease));
  return { completions, carrier, stored, errors, add };
}

describe("completions", () => {
  it("says stored once, even if the carrier does so twice", () => {
    const { carrier, stored, add, completions } = setUp();
    add("a");
    const [sent] = carrier.sent;
    sent!.stored();
    sent!.stored();
    expect(stored).toEqual(["a"]);
    expect(completions.waiting).toBe(0);
    expect(completions.has("a")).toBe(true);
  });

  it("sends again what failed, until it is stored", async () => {
    const { carrier, stored, errors, add } = setUp();
    add("a");
    add("b");
    for (const { stored: answer } of carrier.sent.splice(0)) answer(new Error("down"));
    await vi.waitFor(() => expect(carrier.leases()).toEqual(["a", "b"]), { timeout: 5_000 });
    carrier.confirmAll();
    expect(stored).toEqual(["a", "b"]);
    expect(errors).toEqual(["down"]);
  });

  it("sends the unconfirmed over a new carrier, and ignores the failures of the old one", () => {
    const { completions, carrier, stored, errors, add } = setUp();
    add("a");
    completions.use(undefined);
    add("b");
    const next = new Held();
    completions.use(next);
    expect(next.leases()).toEqual(["a", "b"]);
    carrier.sent[0]!.stored(new Error("closed"));
    expect(errors).toEqual([]);
    next.confirmAll();
    expect(stored).toEqual(["a", "b"]);
  });

  it("takes a late confirmation of the old carrier for what it is", () => {
    const { completions, carrier, stored, add } = setUp();
    add("a");
    completions.use(new Held());
    carrier.confirmAll();
    expect(stored).toEqual(["a"]);
  });

  it("sends confirmed ones again when told to, without a second word to the attempt", () => {
    const { completions, carrier, stored, add } = setUp();
    add("a");
    add("b");
    carrier.confirmAll();
    completions.republish();
    expect(carrier.leases()).toEqual(["a", "b"]);
    carrier.confirmAll();
    expect(stored).toEqual(["a", "b"]);
    completions.republish();
    expect(carrier.leases()).toEqual(["a", "b"]);
  });

  it("sends again what it was given, byte for byte", () => {
    const { completions, carrier, add } = setUp();
    add("a", 300_000);
    add("b", 5);
    carrier.confirmAll();
    completions.repeat("b", () => {});
    completions.republish();
    const wire = (one: CompleteStep): string => Buffer.from(CompleteStep.encode(one).finish()).toString("base64");
    const expected = [completion("b", 5), completion("a", 300_000), completion("b", 5)];
    expect(carrier.sent.map(({ completion: sent }) => wire(sent))).toEqual(expected.map(wire));
  });

  it("keeps at most 64 MiB of confirmed ones, the newest, and 5 minutes of them", () => {
    const { completions, carrier, add } = setUp();
    const half = keptBytesMax / 2;
    for (const lease of ["a", "b", "c"]) {
      add(lease, half);
      carrier.confirmAll();
    }
    expect(["a", "b", "c"].map((lease) => completions.has(lease))).toEqual([false, false, true]);
    const clock = vi.spyOn(performance, "now").mockReturnValue(performance.now() + 5 * 60_000 + 1);
    completions.republish();
    expect(carrier.leases()).toEqual([]);
    clock.mockRestore();
  });

  it("is crowded from 1,024 unconfirmed ones or 16 MiB on", () => {
    const { completions, carrier, add } = setUp();
    for (let index = 0; index < 1_023; index++) add(`${index}`);
    expect(completions.crowded).toBe(false);
    add("last");
    expect(completions.crowded).toBe(true);
    carrier.confirmAll();
    expect(completions.crowded).toBe(false);
    add("big", 16 * 1024 * 1024);
    expect(completions.crowded).toBe(true);
  });

  it("tells when all are stored, and when it is closed before", async () => {
    const { completions, carrier, add } = setUp();
    await completions.drained();
    add("a");
    const drained = completions.drained();
    carrier.confirmAll();
    await drained;
    add("b");
    const closed = completions.drained();
    completions.close();
    await closed;
  });
});
