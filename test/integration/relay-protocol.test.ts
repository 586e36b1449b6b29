/**
 * The relay's coordinator side against a client that speaks the protocol by hand: what the contract test can't see, such as byte
 * credits, frames, refusals and workers that misbehave.
 */
import { type ClientDuplexStream, credentials, type ServiceError, status } from "@grpc/grpc-js";
import {
  CompleteStep,
  type RelayRequest,
  type RelayResponse,
  RelayServiceClient,
  type RelayStart,
  RelayStarts,
} from "@taskmesh/proto";
import { MemoryBus } from "@taskmesh/runtime";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { waitFor } from "../fixtures/process.js";
import { CarrierProbe, encodeStart, grantOf, newLane, RelayServer } from "../fixtures/transport-mesh.js";

const slots = 10;

/** One stream, and all that came over it. */
class RawRelay {
  readonly #client: RelayServiceClient;
  readonly call: ClientDuplexStream<RelayRequest, RelayResponse>;
  readonly frames: RelayStart[][] = [];
  readonly stored: { number: bigint; error: string }[] = [];
  error: ServiceError | undefined;
  ended = false;

  constructor(port: number) {
    this.#client = new RelayServiceClient(`127.0.0.1:${port}`, credentials.createInsecure());
    this.call = this.#client.relay();
    this.call.on("data", ({ message }: RelayResponse) => {
      if (message?.$case === "starts") this.frames.push(message.value.starts);
      if (message?.$case === "stored") this.stored.push(message.value);
    });
    this.call.on("error", (error: ServiceError) => {
      this.error = error;
    });
    this.call.on("end", () => {
      this.ended = true;
    });
  }

  get starts(): RelayStart[] {
    return this.frames.flat();
  }

  send(message: NonNullable<RelayRequest["message"]>): void {
    this.call.write({ message });
  }

  open(sessionId: string): void {
    this.send({ $case: "open", value: { namespace: "default", sessionId } });
  }

  credit(taskQueue: string, count: number, bytes: number, deliveries: bigint[] = []): void {
    this.send({ $case: "credit", value: { taskQueue, slots: count, bytes: BigInt(bytes), deliveries } });
  }

  close(): void {
    this.call.cancel();
    this.#client.close();
  }
}

const opening = (sessionId: string): NonNullable<RelayRequest["message"]> => ({
  $case: "open",
  value: { namespace: "default", sessionId },
});
const credit = (taskQueue: string): NonNullable<RelayRequest["message"]> => ({
  $case: "credit",
  value: { taskQueue, slots: 1, bytes: 1n, deliveries: [] },
});

describe("relay protocol", () => {
  let bus: MemoryBus;
  let probe: CarrierProbe;
  let server: RelayServer;
  let relay: RawRelay;
  let lane: ReturnType<typeof newLane>;
  let taskQueue: string;

  beforeEach(async () => {
    bus = new MemoryBus();
    probe = await new CarrierProbe("coordinator", bus.carrier("coordinator")).start();
    server = await new RelayServer().listen();
    lane = newLane();
    ({ taskQueue } = grantOf(lane, slots));
    server.register("session", probe.carrier, [grantOf(lane, slots)]);
    relay = new RawRelay(server.port);
  });
  afterEach(async () => {
    relay.close();
    await server.close();
    await probe.carrier.stop();
  });

  const publish = async (count: number, size: number): Promise<void> => {
    for (let i = 0; i < count; i++) await probe.publish(lane, `run-${i}`, { size });
  };

  it("sends no more than the slots and the bytes that were allowed", async () => {
    relay.open("session");
    await publish(20, 1_000);
    relay.credit(taskQueue, 3, 2_500);
    await waitFor("two starts", () => relay.starts.length === 2);
    relay.credit(taskQueue, 0, 500);
    await waitFor("the third", () => relay.starts.length === 3);
    relay.credit(taskQueue, 0, 100_000);
    relay.credit(taskQueue, 2, 0);
    await waitFor("two more", () => relay.starts.length === 5);
    // No more than the registration has, however much is asked for.
    relay.credit(taskQueue, 1_000, 100_000);
    await waitFor("all slots", () => relay.starts.length === slots);
    relay.send({ $case: "ack", value: { deliveries: [relay.starts[0]!.delivery] } });
    relay.credit(taskQueue, 1, 1_000, [relay.starts[0]!.delivery]);
    await waitFor("one more for the freed slot", () => relay.starts.length === slots + 1);
    expect(new Set(relay.starts.map(({ start }) => start?.runId)).size).toBe(slots + 1);
  });

  it("keeps frames of starts near 256 KiB", async () => {
    relay.open("session");
    await publish(slots, 100_000);
    relay.credit(taskQueue, slots, 10_000_000);
    await waitFor("all starts", () => relay.starts.length === slots);
    for (const starts of relay.frames) {
      expect(RelayStarts.encode({ starts }).finish().length).toBeLessThan(256 * 1024 + 101_000);
    }
  });

  it("takes no more work for a worker that drains", async () => {
    relay.open("session");
    relay.credit(taskQueue, slots, 1_000_000);
    await publish(1, 500);
    await waitFor("the first start", () => relay.starts.length === 1);
    relay.send({ $case: "drain", value: {} });
    relay.send({
      $case: "completions",
      value: { number: 1n, reportTo: probe.id, batch: { completions: [CompleteStep.fromPartial({ runId: "mark" })] } },
    });
    await waitFor("the drain to be known", () => relay.stored.length === 1);
    const depth = bus.depth;
    await probe.publish(lane, "late");
    const other = new RawRelay(server.port);
    other.open("session");
    other.credit(taskQueue, slots, 1_000_000);
    await waitFor("another worker to take it", () => other.starts.length === 1);
    other.close();
    expect(relay.starts).toHaveLength(1);
    expect(depth).toBe(1);
  });

  it("confirms completions by their number, and each pack as one", async () => {
    relay.open("session");
    const completions = ["a", "b", "c"].map((runId) => CompleteStep.fromPartial({ runId }));
    relay.send({ $case: "completions", value: { number: 42n, reportTo: probe.id, batch: { completions } } });
    await waitFor("the confirmation", () => relay.stored.length > 0);
    expect(relay.stored).toEqual([{ number: 42n, error: "" }]);
    await waitFor("the completions", () => probe.completed.length === 3);
  });

  const nobody = { number: 1n, reportTo: "c", batch: undefined };
  const refusals: [string, NonNullable<RelayRequest["message"]>[] | "nothing", status, RegExp][] = [
    ["a credit before RelayOpen", [credit("queue")], status.INVALID_ARGUMENT, /RelayOpen/],
    ["a session that nobody knows", [opening("stranger")], status.NOT_FOUND, /session/],
    ["a second RelayOpen", [opening("session"), opening("session")], status.INVALID_ARGUMENT, /once/],
    [
      "a queue that is not registered",
      [opening("session"), credit("nobody's")],
      status.INVALID_ARGUMENT,
      /no task queue/,
    ],
    ["an empty message", "nothing", status.INVALID_ARGUMENT, /empty/],
    [
      "completions without any",
      [opening("session"), { $case: "completions", value: nobody }],
      status.INVALID_ARGUMENT,
      /without completions/,
    ],
  ];
  it.each(refusals)("refuses %s", async (_name, messages, code, message) => {
    if (messages === "nothing") {
      relay.open("session");
      relay.call.write({});
    } else for (const each of messages) relay.send(each);
    await waitFor("the refusal", () => relay.error !== undefined);
    expect(relay.error).toMatchObject({ code, details: expect.stringMatching(message) });
    await waitFor("the stream to be forgotten", () => server.streams === 0);
  });

  it("survives acks and frees of deliveries that never were", async () => {
    relay.open("session");
    relay.credit(taskQueue, 2, 10_000, [1n, 99n, 2n ** 63n]);
    relay.send({ $case: "ack", value: { deliveries: [0n, 7n, 2n ** 64n - 1n] } });
    await publish(2, 500);
    await waitFor("both starts", () => relay.starts.length === 2);
    expect(relay.error).toBeUndefined();
  });

  it("gives what a vanished worker held to another one", async () => {
    const shortBus = new MemoryBus({ ackWaitMs: 300 });
    const coordinator = await new CarrierProbe("short", shortBus.carrier("short")).start();
    server.register("session", coordinator.carrier, [grantOf(lane, slots)]);
    relay.open("session");
    relay.credit(taskQueue, slots, 1_000_000);
    await coordinator.publish(lane, "held");
    await waitFor("the start", () => relay.starts.length === 1);
    relay.close();
    await waitFor("the stream's end", () => server.streams === 0);
    const other = new RawRelay(server.port);
    other.open("session");
    other.credit(taskQueue, slots, 1_000_000);
    await waitFor("the start again", () => other.starts.length === 1);
    expect(other.starts[0]).toMatchObject({ redelivered: true, start: { runId: "held" } });
    other.close();
    await coordinator.carrier.stop();
  });

  it("carries a start of the largest size", async () => {
    const size = 512 * 1024;
    expect(encodeStart({ runId: "x", lease: "y" }, size)).toHaveLength(size);
    relay.open("session");
    relay.credit(taskQueue, 1, size);
    await publish(1, size);
    await waitFor("the start", () => relay.starts.length === 1);
  });
});
