/** The parts of the transports that need no wire: names, packing, what a worker holds. */
import { CompleteStep, CompletionBatch, StartBatch, StartStep } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { type CompletionPack, CompletionPacker } from "./completion-packer.js";
import { decodeStart, decodeStarts, LaneHand } from "./lane-hand.js";
import { checkedToken, doneNamespace, parseDelivery, sessionInboxPrefix } from "./nats-names.js";
import { startHeaders } from "./nats-publisher.js";
import { messageBytesMax } from "./transport.js";

describe("names", () => {
  it("reads both forms of a delivery's reply subject", () => {
    const expected = { deliveries: 2, streamSequence: 30, consumerSequence: 40, storedAtMs: 1_795_305_035_817 };
    expect(parseDelivery("$JS.ACK.TASKMESH_START.lane-1-1-1.2.30.40.1795305035817000000.5")).toEqual(expected);
    const second = "$JS.ACK._.ACCHASH.TASKMESH_START.lane-1-1-1.2.30.40.1795305035817000000.5";
    expect(parseDelivery(second)).toEqual(expected);
    expect(parseDelivery(`${second}.token`)).toEqual(expected);
  });

  it.each(["", "_INBOX.x.1", "$JS.ACK.a.b", "$JS.ACK.s.c.x.1.1.1.1", "$JS.API.s.c.1.1.1.1.1"])(
    "takes %j for no delivery",
    (reply) => {
      expect(parseDelivery(reply)).toBeUndefined();
    },
  );

  it("knows the namespace of a completion by its subject alone", () => {
    expect(doneNamespace("done.7.coordinator")).toBe(7);
    expect(doneNamespace("done.0.coordinator")).toBe(0);
    for (const subject of ["done", "done.x.c", "done.-1.c", "done.07.c", "done.1e3.c", "done.4294967296.c"]) {
      expect(doneNamespace(subject), subject).toBeUndefined();
    }
  });

  it.each(["", ">", "*", "a.b", "a b", "a\n", "ä", "x".repeat(101)])(
    "lets %j become no token of a subject",
    (value) => {
      expect(() => checkedToken(value, "session id")).toThrow(/session id/);
      expect(() => sessionInboxPrefix(value)).toThrow();
    },
  );
});

describe("start headers", () => {
  const text = (...args: Parameters<typeof startHeaders>): string =>
    Buffer.from(startHeaders(...args).encode()).toString();

  it("carry the id and the trace context", () => {
    expect(text("lease", { traceparent: "00-a-b-01" })).toBe(
      "NATS/1.0\r\nNats-Msg-Id: lease\r\ntraceparent: 00-a-b-01\r\n\r\n",
    );
  });

  it("leave out what could end a line, and what is no trace context", () => {
    const trace = { traceparent: "x\r\nNats-Msg-Id: other", tracestate: "ok=1", "Nats-Expected-Stream": "S" };
    expect(text("lease", trace)).toBe("NATS/1.0\r\nNats-Msg-Id: lease\r\ntracestate: ok=1\r\n\r\n");
  });
});

describe("completion packer", () => {
  const completion = (runId: string, bytes = 0): CompleteStep =>
    CompleteStep.fromPartial({ runId, logs: bytes > 0 ? [{ message: "x".repeat(bytes) }] : [] });

  it("packs one tick by addressee, in order, into a valid CompletionBatch", async () => {
    const packs: CompletionPack[] = [];
    const packer = new CompletionPacker((pack) => packs.push(pack));
    for (const runId of ["a", "b", "c"]) packer.add(runId === "b" ? "two" : "one", completion(runId, 300), () => {});
    await new Promise((resolve) => setImmediate(resolve));
    expect(packs.map(({ reportTo }) => reportTo)).toEqual(["one", "two"]);
    expect(CompletionBatch.decode(packs[0]!.bytes).completions).toEqual([completion("a", 300), completion("c", 300)]);
  });

  it("begins another message before the bound is passed", async () => {
    const packs: CompletionPack[] = [];
    const packer = new CompletionPacker((pack) => packs.push(pack));
    for (let i = 0; i < 10; i++) packer.add("one", completion(`run-${i}`, 200_000), () => {});
    packer.flush();
    expect(packs.map(({ completions }) => completions.length)).toEqual([2, 2, 2, 2, 2]);
    for (const { bytes } of packs) expect(bytes.length).toBeLessThanOrEqual(messageBytesMax);
  });

  it("settles each completion of a pack once, and refuses one that no message holds", async () => {
    const packer = new CompletionPacker(({ stored }) => stored(new Error("lost")));
    const errors: (string | undefined)[] = [];
    packer.add("one", completion("a"), (error) => errors.push(error?.message));
    packer.add("one", completion("b"), (error) => errors.push(error?.message));
    packer.add("one", completion("c", messageBytesMax), (error) => errors.push(error?.message));
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    expect(errors.filter((message) => message === "lost")).toHaveLength(2);
    expect(errors.filter((message) => message?.includes("bytes"))).toHaveLength(1);
  });
});

describe("lane hand", () => {
  const start = (lease: string): StartStep => StartStep.fromPartial({ runId: "run", lease });
  const arrived = (lease: string, acks: string[], name = lease): Parameters<LaneHand["admit"]>[0] => ({
    start: start(lease),
    redelivered: false,
    ack: () => acks.push(name),
  });

  it("counts slots from admit to release, once each", () => {
    let freed = 0;
    const hand = new LaneHand("queue", 2, () => (freed += 1));
    const first = hand.admit(arrived("a", []))!;
    hand.admit(arrived("b", []));
    expect(hand.free).toBe(0);
    first.release();
    first.release();
    expect([hand.free, freed]).toEqual([1, 1]);
  });

  it("swallows a start that is held, and acks it under its newest delivery", () => {
    const acks: string[] = [];
    const hand = new LaneHand("queue", 2, () => {});
    const first = hand.admit(arrived("a", acks, "first delivery"))!;
    expect(hand.admit(arrived("a", acks, "second delivery"))).toBeUndefined();
    expect(hand.free).toBe(1);
    first.ack();
    first.ack();
    expect(acks).toEqual(["second delivery"]);
    expect(hand.admit(arrived("a", acks, "third delivery"))).toBeUndefined();
    expect(acks).toEqual(["second delivery", "third delivery"]);
    first.release();
    expect(hand.admit(arrived("a", acks))).toBeDefined();
  });

  it("reads no start from bytes that are none", () => {
    expect(decodeStart(StartStep.encode(start("a")).finish())).toMatchObject({ lease: "a" });
    const pack = StartBatch.encode({ starts: [start("a"), start("b")] }).finish();
    expect(decodeStarts(pack)?.map(({ lease }) => lease)).toEqual(["a", "b"]);
    expect(decodeStarts(StartBatch.encode({ starts: [start("a"), start("")] }).finish())).toBeUndefined();
    for (const read of [decodeStarts, decodeStart]) expect(read(new Uint8Array(0))).toBeUndefined();
    expect(decodeStarts(Buffer.from([0xff, 0xff, 0xff]))).toBeUndefined();
    expect(decodeStart(Buffer.from([0xff, 0xff, 0xff]))).toBeUndefined();
  });
});
