/**
 * The one contract that every transport keeps (transport.ts, C1 to C8), held against each way in which work is carried.
 * What only a broker or a wire can suffer is tested where there is one.
 */
import { CompleteStep, EmittedOutput } from "@taskmesh/proto";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { newNatsServerBin } from "../../../test/fixtures/nats.js";
import { waitFor } from "../../../test/fixtures/process.js";
import {
  type CarrierProbe,
  completionOfSize,
  encodeStart,
  jetstreamMesh,
  memoryMesh,
  newLane,
  relayMesh,
  type TransportMesh,
  type WorkerProbe,
} from "../../../test/fixtures/transport-mesh.js";
import { laneConsumer, laneSubject, messageBytesMax } from "./transport.js";

/** Kinds share nothing and mostly wait, so they are tested side by side; the tests of one kind share its servers and take turns. */
const it = test.sequential;

interface Kind {
  name: string;
  wire: boolean;
  broker: boolean;
  open(): Promise<TransportMesh>;
}

const newer = newNatsServerBin();
const kinds: Kind[] = [
  { name: "memory", wire: false, broker: false, open: memoryMesh },
  { name: "jetstream", wire: true, broker: true, open: () => jetstreamMesh() },
  ...(newer ? [{ name: "jetstream, newer server", wire: true, broker: true, open: () => jetstreamMesh(newer) }] : []),
  { name: "relay over memory", wire: true, broker: false, open: () => relayMesh(memoryMesh) },
  { name: "relay over jetstream", wire: true, broker: true, open: () => relayMesh(() => jetstreamMesh()) },
];

/** Bytes of a batch around one completion of this size. */
const framingBytes = 5;

let coordinators = 0;
const names = (count: number, prefix: string): string[] => Array.from({ length: count }, (_, i) => `${prefix}-${i}`);

for (const kind of kinds) {
  describe.concurrent(kind.name, () => {
    let mesh: TransportMesh;
    let open: { carriers: CarrierProbe[]; workers: WorkerProbe[] };

    beforeAll(async () => {
      mesh = await kind.open();
      open = { carriers: [], workers: [] };
    });
    afterEach(async () => {
      mesh.wire?.heal();
      for (const worker of open.workers.splice(0)) await worker.transport.close();
      for (const carrier of open.carriers.splice(0)) await carrier.carrier.stop();
    });
    afterAll(() => mesh.close());

    const carrier = async (): Promise<CarrierProbe> => {
      coordinators += 1;
      const made = await mesh.carrier(`coordinator-${coordinators}`);
      open.carriers.push(made);
      return made;
    };
    const worker = async (...args: Parameters<TransportMesh["worker"]>): Promise<WorkerProbe> => {
      const made = await mesh.worker(...args);
      open.workers.push(made);
      return made;
    };
    /** Finishes everything that it is given. */
    const busyWorker = async (...args: Parameters<TransportMesh["worker"]>): Promise<WorkerProbe> => {
      const made = await worker(...args);
      made.onStart = (delivery) => void made.finish(delivery).catch(() => made.release(delivery));
      return made;
    };

    it("carries a start with its trace to a worker, and the completion back to the coordinator it names", async () => {
      const lane = newLane();
      const coordinator = await carrier();
      const other = await carrier();
      const one = await worker(coordinator, [{ lane, slots: 2 }]);
      const headers = { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" };
      expect(await coordinator.publish(lane, "run-1", { headers })).toEqual({ kind: "stored" });
      await waitFor("the start", () => one.starts.length === 1);
      const [delivery] = one.starts;
      expect(delivery).toMatchObject({ taskQueue: `queue-${lane.laneId}`, redelivered: false, headers });
      expect(delivery!.start).toMatchObject({
        runId: "run-1",
        lease: `lease-${lane.laneId}-run-1`,
        reportTo: coordinator.id,
      });
      await one.finish(delivery!);
      await waitFor("the completion", () => coordinator.completed.includes("run-1"));
      expect(coordinator.deliveries[0]!.namespaceId).toBe(lane.namespaceId);
      expect(other.completed).toEqual([]);
    });

    it("passes what a handler emits to all who listen to its run, in order, and to nobody else", async () => {
      const [one, two] = [await carrier(), await carrier()];
      const from = await worker(one, [{ lane: newLane(), slots: 1 }]);
      const heard: Record<string, string[]> = { one: [], two: [], other: [], late: [] };
      const listen = (at: CarrierProbe, runId: string, into: string) =>
        at.carrier.onEmitted({ namespaceId: newLane().namespaceId, runId }, (bytes) => {
          const { number, output } = EmittedOutput.decode(bytes);
          heard[into]!.push(`${number} ${output?.data?.$case === "inline" ? output.data.value.toString() : ""}`);
        });
      const stops = [listen(one, "run-out", "one"), listen(two, "run-out", "two"), listen(one, "run-other", "other")];
      const emit = (number: number) =>
        from.transport.emit(
          EmittedOutput.fromPartial({
            ...{ runId: "run-out", attempt: 1, lease: "L1", number: BigInt(number) },
            output: { data: { $case: "inline", value: Buffer.from(`o${number}`) } },
          }),
        );
      // A broker may learn of a listener a moment later.
      await waitFor("the listeners", async () => {
        await emit(0);
        return heard["one"]!.length > 0 && heard["two"]!.length > 0;
      });
      for (let number = 1; number <= 300; number++) await emit(number);
      const wanted = names(300, "o").map((_, i) => `${i + 1} o${i + 1}`);
      const after = (into: string) => heard[into]!.filter((text) => text !== "0 o0");
      for (const into of ["one", "two"]) await waitFor(into, () => after(into).length === wanted.length);
      expect([after("one"), after("two"), heard["other"]]).toEqual([wanted, wanted, []]);
      for (const stop of stops) stop();
      const late = listen(one, "run-out", "late");
      await waitFor("the late one", async () => {
        await emit(301);
        return heard["late"]!.length > 0;
      });
      expect(after("one")).toHaveLength(300);
      late();
    });

    it("takes two publishes of one id for one message", async () => {
      const lane = newLane();
      const coordinator = await carrier();
      const one = await worker(coordinator, [{ lane, slots: 10 }]);
      for (let i = 0; i < 3; i++) expect(await coordinator.publish(lane, "twice")).toEqual({ kind: "stored" });
      await coordinator.publish(lane, "last");
      await waitFor("the last start", () => one.of("last").length === 1);
      expect(one.of("twice")).toHaveLength(1);
    });

    it("delivers a start again without an ack, says so, and stops when it is acked", async () => {
      const lane = newLane();
      const coordinator = await carrier();
      const one = await worker(coordinator, [{ lane, slots: 10 }]);
      one.onStart = (delivery) => {
        // Bound or stored at once, and still running; the other one is dropped without a word.
        if (delivery.start.runId === "acked") delivery.ack();
        else one.release(delivery);
      };
      await coordinator.publish(lane, "acked");
      await coordinator.publish(lane, "lost");
      await waitFor("two redeliveries", () => one.of("lost").length === 3);
      expect(one.of("lost").map(({ redelivered }) => redelivered)).toEqual([false, true, true]);
      expect(one.of("acked")).toHaveLength(1);
    });

    it("does not give a start twice to the worker that still holds it, and takes the late ack", async () => {
      const lane = newLane();
      const coordinator = await carrier();
      const one = await worker(coordinator, [{ lane, slots: 10 }]);
      one.onStart = (delivery) => {
        if (delivery.start.runId === "lost") one.release(delivery);
      };
      await coordinator.publish(lane, "held");
      await coordinator.publish(lane, "lost");
      await waitFor("two redeliveries of the other", () => one.of("lost").length === 3);
      expect(one.of("held")).toHaveLength(1);
      const held = one.of("held")[0]!;
      held.ack();
      const seen = one.of("lost").length;
      await waitFor("the ack to be known", () => one.of("lost").length === seen + 1);
      one.release(held);
      await waitFor("two more redeliveries of the other", () => one.of("lost").length === seen + 3);
      expect(one.of("held")).toHaveLength(1);
    });

    it("never gives a worker more than its free slots, and fills slots that become free", async () => {
      const lane = newLane();
      const marker = newLane();
      const coordinator = await carrier();
      const one = await worker(coordinator, [
        { lane, slots: 3 },
        { lane: marker, slots: 1 },
      ]);
      for (const runId of names(10, "run")) await coordinator.publish(lane, runId);
      await coordinator.publish(marker, "marker");
      await waitFor("three starts and the marker", () => one.starts.length >= 4);
      one.release(one.of("marker")[0]!);
      for (let finished = 0; finished < 10; finished++) {
        const next = (): (typeof one.starts)[number] | undefined =>
          one.starts.filter(({ start }) => start.runId !== "marker")[finished];
        await waitFor("the next start", () => next() !== undefined);
        await one.finish(next()!);
      }
      // The marker's slot is its own: it was held beside the three.
      expect(one.heldMax).toBeLessThanOrEqual(4);
      await waitFor("all completions", () => coordinator.completed.length === 10);
    });

    it("packs the completions of one tick", async () => {
      const lane = newLane();
      const coordinator = await carrier();
      const one = await worker(coordinator, [{ lane, slots: 1 }]);
      const runIds = names(200, "packed");
      await Promise.all(
        runIds.map((runId) => one.complete(coordinator.id, CompleteStep.fromPartial({ runId, lease: runId }))),
      );
      await waitFor("all completions", () => coordinator.completed.length >= 200);
      expect(new Set(coordinator.completed)).toEqual(new Set(runIds));
      expect(coordinator.deliveries.length).toBeLessThan(20);
    });

    it("lets a survivor adopt a coordinator's completions, and release it when none are left", async () => {
      const lane = newLane();
      const lapsed = await carrier();
      const survivor = await carrier();
      const one = await worker(survivor, [{ lane, slots: 1 }]);
      lapsed.autoAck = false;
      await one.complete(lapsed.id, CompleteStep.fromPartial({ runId: "unacked", lease: "a" }));
      await waitFor("the first delivery", () => lapsed.completed.length === 1);
      await lapsed.carrier.stop();
      await one.complete(lapsed.id, CompleteStep.fromPartial({ runId: "later", lease: "b" }));
      survivor.autoAck = false;
      const read = async () => await survivor.carrier.completionsRead([survivor.id, lapsed.id]);
      const { stored: mark } = await read();
      expect((await read()).read, "nobody reads the lapsed one's").toBeLessThan(mark);
      await survivor.carrier.adopt(lapsed.id);
      await survivor.carrier.adopt(lapsed.id);
      await waitFor("the later completion", () => survivor.completed.includes("later"));
      expect(await survivor.carrier.release(lapsed.id)).toBe(false);
      expect((await read()).read, "in hand is not read").toBeLessThan(mark);
      survivor.autoAck = true;
      for (const delivery of survivor.deliveries) delivery.ack();
      // What the lapsed one held comes after its ack wait.
      await waitFor("the unacked completion", () => survivor.completed.includes("unacked"));
      await waitFor("all of it to be read", async () => (await read()).read >= mark);
      await waitFor("the release", () => survivor.carrier.release(lapsed.id));
    });

    it("takes messages up to the size bound and refuses one byte more", async () => {
      const lane = newLane();
      const coordinator = await carrier();
      const one = await busyWorker(coordinator, [{ lane, slots: 5 }]);
      for (const delta of [-1, 0]) {
        const outcome = await coordinator.publish(lane, `start${delta}`, { size: messageBytesMax + delta });
        expect(outcome).toEqual({ kind: "stored" });
        await waitFor("the start", () => one.of(`start${delta}`).length === 1);
      }
      const refused = await coordinator.publish(lane, "start1", { size: messageBytesMax + 1 });
      expect(refused).toMatchObject({ kind: "refused", message: expect.stringContaining(String(messageBytesMax)) });

      const completionMax = messageBytesMax - framingBytes;
      for (const delta of [-1, 0]) {
        await one.complete(coordinator.id, completionOfSize(`done${delta}`, "x", completionMax + delta));
        await waitFor("the completion", () => coordinator.completed.includes(`done${delta}`));
      }
      const tooLarge = completionOfSize("done1", "x", completionMax + 1);
      await expect(one.complete(coordinator.id, tooLarge)).rejects.toThrow(/bytes/);
    });

    it("holds 1,500 starts in flight and completes them all", async () => {
      const lane = newLane();
      const coordinator = await carrier();
      const one = await worker(coordinator, [{ lane, slots: 1_500 }]);
      const runIds = names(1_500, "flight");
      await Promise.all(runIds.map((runId) => coordinator.publish(lane, runId)));
      await waitFor("all starts", () => one.starts.length >= 1_500);
      expect(one.heldMax).toBe(1_500);
      await Promise.all(one.starts.map((delivery) => one.finish(delivery)));
      await waitFor("all completions", () => new Set(coordinator.completed).size === 1_500);
    });

    it("brings a probe to its session alone", async () => {
      const lane = newLane();
      const coordinator = await carrier();
      const one = await worker(coordinator, [{ lane, slots: 1 }]);
      const two = await worker(coordinator, [{ lane, slots: 1 }]);
      // Probes are not kept: the first ones may be sent before the worker's subscription is known.
      let sent = 0;
      await waitFor("a probe", () => {
        coordinator.carrier.probe(lane.namespaceId, one.sessionId, `nonce-${sent++}`);
        return one.probes.length > 0;
      });
      expect(one.probes[0]).toMatch(/^nonce-\d+$/);
      expect(two.probes).toEqual([]);
    });

    it("gives nothing new to a worker that drains, while what it holds goes on", async () => {
      const lane = newLane();
      const coordinator = await carrier();
      const leaving = await worker(coordinator, [{ lane, slots: 5 }]);
      await coordinator.publish(lane, "held");
      await waitFor("the start", () => leaving.starts.length === 1);
      const staying = await busyWorker(coordinator, [{ lane, slots: 5 }]);
      await leaving.transport.drain();
      let streak = 0;
      for (let i = 0; i < 100 && streak < 20; i++) {
        await coordinator.publish(lane, `next-${i}`);
        await waitFor(
          "the start to be taken",
          () => leaving.of(`next-${i}`).length + staying.of(`next-${i}`).length > 0,
        );
        streak = staying.of(`next-${i}`).length > 0 ? streak + 1 : 0;
      }
      expect(streak).toBe(20);
      await leaving.finish(leaving.of("held")[0]!);
      await waitFor("the held one's completion", () => coordinator.completed.includes("held"));
    });

    it("says that it was wiped, and goes on with empty queues", async () => {
      const lane = newLane();
      const coordinator = await carrier();
      await coordinator.carrier.ensureLane(lane);
      await coordinator.publish(lane, "lost");
      const wiped = coordinator.wiped;
      await mesh.wipe();
      await waitFor("the notice", () => coordinator.wiped > wiped);
      const one = await busyWorker(coordinator, [{ lane, slots: 2 }]);
      expect(await coordinator.publish(lane, "after")).toEqual({ kind: "stored" });
      await waitFor("the completion", () => coordinator.completed.includes("after"));
      expect(one.of("lost")).toEqual([]);
      expect(one.of("after")).toMatchObject([{ redelivered: false }]);
    });

    it("stops, closes and drains any number of times", async () => {
      const lane = newLane();
      const coordinator = await carrier();
      const one = await worker(coordinator, [{ lane, slots: 1 }]);
      void one.transport.drain();
      void one.transport.drain();
      await Promise.all([one.transport.close(), one.transport.close()]);
      await one.transport.close();
      await expect(one.complete(coordinator.id, CompleteStep.fromPartial({ runId: "late" }))).rejects.toThrow();
      await Promise.all([coordinator.carrier.stop(), coordinator.carrier.stop()]);
      expect(coordinator.carrier.healthy()).toBe(false);
    });

    if (kind.wire) wireTests(() => mesh, carrier, busyWorker);
    if (kind.broker) brokerTests(() => mesh, carrier, worker, busyWorker);
  });
}

type MakeCarrier = () => Promise<CarrierProbe>;
type MakeWorker = TransportMesh["worker"];

/** The worker's connection breaks in every way that a wire can. */
function wireTests(mesh: () => TransportMesh, carrier: MakeCarrier, busyWorker: MakeWorker): void {
  it.each(["cut", "cut in the middle of a message", "black hole", "refuse"])(
    "survives a %s of its wire",
    async (fault) => {
      const wire = mesh().wire!;
      const lane = newLane();
      const coordinator = await carrier();
      const one = await busyWorker(coordinator, [{ lane, slots: 20 }]);
      const runIds = names(60, "wire");
      for (const runId of runIds.slice(0, 20)) await coordinator.publish(lane, runId);
      await waitFor("work before the fault", () => coordinator.completed.length >= 20);
      const before = wire.accepted;
      if (fault === "cut") wire.cut();
      if (fault.startsWith("cut in")) wire.cutAfter(700, "up");
      if (fault === "black hole") wire.blackHole();
      if (fault === "refuse") wire.refuse();
      for (const runId of runIds.slice(20, 40)) await coordinator.publish(lane, runId);
      // A black hole must be noticed by itself: the next dial is the proof. Refused dials are not counted, so that fault ends first.
      if (fault === "refuse") setTimeout(() => wire.heal(), 1_000);
      await waitFor("a new connection", () => wire.accepted > before, 30_000);
      wire.heal();
      for (const runId of runIds.slice(40)) await coordinator.publish(lane, runId);
      await waitFor("all completions", () => new Set(coordinator.completed).size === 60, 30_000);
      expect(one.closedWith).toBeUndefined();
    },
  );
}

/** The broker loses things, is gone, or is fed garbage. */
function brokerTests(
  mesh: () => TransportMesh,
  carrier: MakeCarrier,
  worker: MakeWorker,
  busyWorker: MakeWorker,
): void {
  it("goes on when the broker comes back without its data", async () => {
    const { nats } = mesh().broker!;
    const lane = newLane();
    const coordinator = await carrier();
    const one = await busyWorker(coordinator, [{ lane, slots: 5 }]);
    await coordinator.publish(lane, "before");
    await waitFor("work before the fault", () => coordinator.completed.includes("before"));
    const wiped = coordinator.wiped;
    await nats.kill();
    await nats.wipe();
    await nats.start();
    await waitFor("the notice", () => coordinator.wiped > wiped);
    expect(await coordinator.publish(lane, "after")).toEqual({ kind: "stored" });
    await waitFor("the completion", () => coordinator.completed.includes("after"));
    expect(one.of("after")).toMatchObject([{ redelivered: false }]);
    await waitFor("health", () => coordinator.carrier.healthy());
  });

  it("publishes what came during an outage when the broker is back, once", async () => {
    const { nats } = mesh().broker!;
    const lane = newLane();
    const coordinator = await carrier();
    const one = await busyWorker(coordinator, [{ lane, slots: 5 }]);
    await nats.kill();
    const outcomes = names(20, "outage").map((runId) => coordinator.publish(lane, runId));
    await nats.start();
    expect(new Set((await Promise.all(outcomes)).map(({ kind }) => kind))).toEqual(new Set(["stored"]));
    await waitFor("all completions", () => new Set(coordinator.completed).size === 20);
    const fresh = one.starts.filter(({ redelivered }) => !redelivered).map(({ start }) => start.runId);
    expect(fresh).toHaveLength(new Set(fresh).size);
  });

  it("says that an outcome is unknown when the broker stays away", async () => {
    const { nats } = mesh().broker!;
    const lane = newLane();
    const coordinator = await carrier();
    await coordinator.carrier.ensureLane(lane);
    await nats.kill();
    try {
      await waitFor("the outage to be noticed", () => !coordinator.carrier.healthy());
      expect(await coordinator.publish(lane, "never")).toMatchObject({ kind: "unknown" });
    } finally {
      await nats.start();
    }
    await waitFor("health", () => coordinator.carrier.healthy());
  });

  it("makes a deleted consumer again, and marks what it may have delivered before", async () => {
    const broker = mesh().broker!;
    const lane = newLane();
    const coordinator = await carrier();
    const one = await worker(coordinator, [{ lane, slots: 5 }]);
    await coordinator.publish(lane, "held");
    await waitFor("the start", () => one.starts.length === 1);
    one.onStart = (delivery) => void one.finish(delivery);
    one.release(one.starts[0]!);
    await broker.deleteConsumer("TASKMESH_START", laneConsumer(lane));
    await broker.deleteConsumer("TASKMESH_DONE", `done-${coordinator.id}`);
    await waitFor("the start again", () => one.of("held").length === 2);
    expect(one.of("held")[1]!.redelivered).toBe(true);
    await coordinator.publish(lane, "fresh");
    await waitFor("the completions", () => ["held", "fresh"].every((runId) => coordinator.completed.includes(runId)));
    expect(one.of("fresh")[0]!.redelivered).toBe(false);
  });

  it("does not let an ack of a lost message remove a later one of the same number", async () => {
    const broker = mesh().broker!;
    const lane = newLane();
    const coordinator = await carrier();
    const one = await worker(coordinator, [{ lane, slots: 50 }]);
    await mesh().wipe();
    await waitFor("the notice", () => coordinator.wiped > 0);
    for (const runId of names(10, "old")) await coordinator.publish(lane, runId);
    await waitFor(
      "the old starts",
      () => one.starts.filter(({ start }) => start.runId.startsWith("old")).length === 10,
    );
    const wiped = coordinator.wiped;
    await mesh().wipe();
    await waitFor("the second notice", () => coordinator.wiped > wiped);
    for (const runId of names(10, "new")) await coordinator.publish(lane, runId);
    for (const { start, ack } of one.starts) if (start.runId.startsWith("old")) ack();
    await waitFor(
      "the new starts",
      () => one.starts.filter(({ start }) => start.runId.startsWith("new")).length === 10,
    );
    expect(await broker.messages("TASKMESH_START")).toBe(10);
  });

  it("terminates what nobody can read, on every subject, and goes on", async () => {
    const broker = mesh().broker!;
    const lane = newLane();
    const coordinator = await carrier();
    const one = await busyWorker(coordinator, [{ lane, slots: 5 }]);
    const truncated = encodeStart({ runId: "r", lease: "l", namespaceId: 1, method: "m".repeat(50) }).subarray(0, 20);
    const startsBefore = await broker.messages("TASKMESH_START");
    for (const garbage of [Buffer.from([0xff, 0xff, 0xff]), Buffer.from("not protobuf at all"), truncated]) {
      await broker.publishRaw(laneSubject(lane), garbage);
      await broker.publishRaw(`done.${lane.namespaceId}.${coordinator.id}`, garbage);
      await broker.publishRaw(`done.not-a-number.${coordinator.id}`, garbage);
    }
    await coordinator.publish(lane, "good");
    await waitFor("the good one", () => coordinator.completed.includes("good"));
    await waitFor("no completion left", async () => (await broker.messages("TASKMESH_DONE")) === 0);
    await waitFor("no start left", async () => (await broker.messages("TASKMESH_START")) === startsBefore);
    expect(one.starts).toHaveLength(1);
  });
}
