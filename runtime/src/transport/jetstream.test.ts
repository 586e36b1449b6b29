/**
 * What only a JetStream carrier can meet: a broker that comes late, foreign streams, data that was rolled back, a stuck consumer.
 */
import { AckPolicy, jetstreamManager, RetentionPolicy } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { afterEach, describe, expect, it } from "vitest";
import { type NatsFixture, newNatsServerBin, startNats } from "../../../test/fixtures/nats.js";
import { freePort } from "../../../test/fixtures/ports.js";
import { waitFor } from "../../../test/fixtures/process.js";
import { CarrierProbe, jetstreamMesh, newLane, type WorkerProbe } from "../../../test/fixtures/transport-mesh.js";
import { createJetStreamCarrier } from "./jetstream.js";
import { NatsLink } from "./nats-link.js";
import { laneConsumer, laneSubject } from "./transport.js";

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const silent = { onCompletions: () => {}, onWiped: () => {} };

async function manager(nats: NatsFixture): Promise<Awaited<ReturnType<typeof jetstreamManager>>> {
  const nc = await connect({ servers: `127.0.0.1:${nats.port}` });
  cleanups.push(() => nc.close());
  return await jetstreamManager(nc);
}

describe("JetStream carrier", () => {
  it("waits for a broker that comes later", async () => {
    const port = await freePort();
    const carrier = createJetStreamCarrier({ coordinatorId: "early", servers: [`nats://127.0.0.1:${port}`] });
    let started = false;
    const starting = carrier.start(silent).then(() => {
      started = true;
    });
    cleanups.push(() => carrier.stop());
    expect(carrier.healthy()).toBe(false);
    const nats = await startNats({ port });
    cleanups.push(() => nats.dispose());
    expect(started).toBe(false);
    await starting;
    expect(carrier.healthy()).toBe(true);
  });

  it("gives up waiting when it is told to, with the reason", async () => {
    const servers = [`nats://127.0.0.1:${await freePort()}`];
    const carrier = createJetStreamCarrier({ coordinatorId: "impatient", servers });
    await expect(carrier.start(silent, AbortSignal.timeout(500))).rejects.toThrow(/can't be reached/);
    await carrier.stop();
  });

  it("refuses a stream of another kind under its name", async () => {
    const nats = await startNats();
    cleanups.push(() => nats.dispose());
    const jsm = await manager(nats);
    await jsm.streams.add({ name: "TASKMESH_START", subjects: ["start.>"], retention: RetentionPolicy.Limits });
    const carrier = createJetStreamCarrier({ coordinatorId: "guest", servers: [nats.url] });
    await expect(carrier.start(silent)).rejects.toThrow(/no work queue/);
  });

  it("refuses a coordinator id that is no token of a subject", () => {
    for (const coordinatorId of ["", "a.b", "a>", "*", "a b", "a\r\nPUB x", "x".repeat(101)]) {
      expect(() => createJetStreamCarrier({ coordinatorId, servers: ["nats://127.0.0.1:4222"] })).toThrow(/letters/);
    }
  });

  it("gives a worker that drains what was on its way to it, so that nothing has to come again", async () => {
    const mesh = await jetstreamMesh();
    cleanups.push(() => mesh.close());
    const coordinator = await mesh.carrier("rollout");
    const lane = newLane();
    const rounds = 15;
    const perRound = 8;
    const finishing = async (): Promise<WorkerProbe> => {
      const made = await mesh.worker(coordinator, [{ lane, slots: 100 }]);
      made.onStart = (delivery) => void made.finish(delivery).catch(() => made.release(delivery));
      return made;
    };
    const workers = [await finishing()];
    await coordinator.publish(lane, "first");
    await waitFor("the first start", () => coordinator.completed.includes("first"));
    for (let round = 0; round < rounds; round++) {
      const leaving = workers.at(-1)!;
      const published = Array.from({ length: perRound }, (_, i) => coordinator.publish(lane, `run-${round}-${i}`));
      // As soon as one of them may be on its way.
      await Promise.race(published);
      await leaving.transport.drain();
      await waitFor("what it holds", () => leaving.held === 0);
      await leaving.transport.close();
      workers.push(await finishing());
      await Promise.all(published);
    }
    await waitFor("every completion", () => new Set(coordinator.completed).size === rounds * perRound + 1, 60_000);
    const again = workers.flatMap(({ starts }) => starts.filter(({ redelivered }) => redelivered));
    expect(again.map(({ start }) => start.runId)).toEqual([]);
    for (const worker of workers) await worker.transport.close();
    await coordinator.carrier.stop();
  }, 120_000);

  it("notices that the broker's data was rolled back, and acks nothing of the lost time", async () => {
    const mesh = await jetstreamMesh();
    cleanups.push(() => mesh.close());
    const { nats, messages } = mesh.broker!;
    const coordinator = await mesh.carrier("rolled");
    const lane = newLane();
    const worker = await mesh.worker(coordinator, [{ lane, slots: 100 }]);
    for (let i = 0; i < 5; i++) await coordinator.publish(lane, `kept-${i}`);
    await waitFor("the first starts", () => worker.starts.length === 5);
    await nats.snapshot();
    for (let i = 0; i < 20; i++) await coordinator.publish(lane, `lost-${i}`);
    await waitFor("the starts that will be lost", () => worker.starts.length === 25);
    const wiped = coordinator.wiped;
    await nats.kill();
    await nats.rollBack();
    await nats.start();
    await waitFor("the notice", () => coordinator.wiped > wiped);
    // The new ones take the sequence numbers of the lost ones.
    for (let i = 0; i < 20; i++) await coordinator.publish(lane, `new-${i}`);
    for (const { start, ack } of worker.starts) if (start.runId.startsWith("lost")) ack();
    const fresh = (): number => worker.starts.filter(({ start }) => start.runId.startsWith("new")).length;
    await waitFor("the new starts", () => fresh() === 20);
    expect(await messages("TASKMESH_START")).toBe(25);
  });

  it("gives up the consumer of a lane that has no workers any more, and makes it again when one comes", async () => {
    const nats = await startNats();
    cleanups.push(() => nats.dispose());
    const carrier = createJetStreamCarrier({ coordinatorId: "keeper", servers: [nats.url], laneKeptMs: 1_000 });
    cleanups.push(() => carrier.stop());
    await carrier.start(silent);
    const jsm = await manager(nats);
    const lanes = [newLane(), newLane()];
    // As an earlier release made them.
    for (const lane of lanes) {
      const settings = {
        ack_policy: AckPolicy.Explicit,
        max_ack_pending: -1,
        max_waiting: 10_000,
        filter_subject: laneSubject(lane),
      };
      await jsm.consumers.add("TASKMESH_START", { durable_name: laneConsumer(lane), ...settings });
    }
    for (const lane of lanes) await carrier.ensureLane(lane);
    const [left, kept] = lanes.map(laneConsumer);
    const names = async (): Promise<string[]> => {
      const found: string[] = [];
      for await (const { name } of jsm.consumers.list("TASKMESH_START")) found.push(name);
      return found;
    };
    carrier.keepLanes([lanes[1]!]);
    await waitFor("one to be given up", async () => !(await names()).includes(left!), 20_000);
    // Nobody pulls the other one either, but it has workers: it is made again.
    await waitFor("the other to be made again", () => carrier.counters.consumersRemade > 0, 20_000);
    await waitFor("it alone", async () => (await names()).join() === kept, 20_000);
    await carrier.ensureLane(lanes[0]!);
    expect(await names()).toContain(left);
  }, 60_000);

  it("tells every coordinator of a wipe", async () => {
    const mesh = await jetstreamMesh();
    cleanups.push(() => mesh.close());
    const coordinators = [await mesh.carrier("first"), await mesh.carrier("second"), await mesh.carrier("third")];
    await waitFor("the notice of the maker", () => coordinators[0]!.wiped === 1);
    expect(coordinators.slice(1).map(({ wiped }) => wiped)).toEqual([0, 0]);
    const before = coordinators.map(({ wiped }) => wiped);
    await mesh.wipe();
    await waitFor("every notice", () => coordinators.every(({ wiped }, i) => wiped > before[i]!));
  });

  const newer = newNatsServerBin();
  if (newer) {
    it("makes a consumer again that has work and pullers and delivers nothing", async () => {
      const mesh = await jetstreamMesh(newer);
      cleanups.push(() => mesh.close());
      const coordinator = await mesh.carrier("stuck");
      const lane = newLane();
      const worker = await mesh.worker(coordinator, [{ lane, slots: 5 }]);
      worker.onStart = (delivery) => void worker.finish(delivery);
      await coordinator.publish(lane, "before");
      await waitFor("work before the fault", () => coordinator.completed.includes("before"));
      const jsm = await manager(mesh.broker!.nats);
      await jsm.consumers.pause("TASKMESH_START", laneConsumer(lane), new Date(Date.now() + 3_600_000));
      await coordinator.publish(lane, "stuck");
      await waitFor("the stuck start", () => coordinator.completed.includes("stuck"), 30_000);
      expect(coordinator.carrier).toHaveProperty("counters.consumersRemade", 1);
    });
  }

  it("leaves a server that is of no use for another one, be it the first that it dialled", async () => {
    const servers = await Promise.all([startNats(), startNats()]);
    for (const server of servers) cleanups.push(() => server.dispose());
    const link = await NatsLink.open({ servers: servers.map(({ url }) => url), name: "mover" });
    cleanups.push(() => link.close());
    const left = link.nc.getServer();
    link.move();
    await waitFor("the other server", () => link.up && link.nc.getServer() !== left);
    // Right after a move there is none.
    link.move();
    expect(await link.flush(5_000)).toBe(true);
    expect(link.nc.getServer()).not.toBe(left);
  });

  it("hears its own completions only, whoever shares the stream", async () => {
    const nats = await startNats();
    cleanups.push(() => nats.dispose());
    const make = async (id: string): Promise<CarrierProbe> => {
      const carrier = createJetStreamCarrier({ coordinatorId: id, servers: [nats.url] });
      cleanups.push(() => carrier.stop());
      return await new CarrierProbe(id, carrier).start();
    };
    const [one, two] = [await make("one"), await make("two")];
    const jsm = await manager(nats);
    for (let i = 0; i < 10; i++) await jsm.jetstream().publish(`done.1.${i % 2 ? "one" : "two"}`, new Uint8Array(0));
    await waitFor("all deliveries", () => one.deliveries.length + two.deliveries.length === 10);
    expect([one.deliveries.length, two.deliveries.length]).toEqual([5, 5]);
  });

  it("packs starts of one tick, and acks a message when all of its starts are acked", async () => {
    const mesh = await jetstreamMesh();
    cleanups.push(() => mesh.close());
    const coordinator = await mesh.carrier("packing");
    const lane = newLane();
    const worker = await mesh.worker(coordinator, [{ lane, slots: 64, packMax: 4 }]);
    const { messages } = mesh.broker!;
    const runIds = Array.from({ length: 10 }, (_, i) => `packed-${i}`);
    const published = Promise.all(runIds.map((runId) => coordinator.publish(lane, runId, { packMax: 4 })));
    expect(await published).toEqual(runIds.map(() => ({ kind: "stored" })));
    expect(await messages("TASKMESH_START")).toBe(3);
    await waitFor("all starts", () => worker.starts.length === 10);
    expect(worker.starts.map(({ start }) => start.runId)).toEqual(runIds);
    const [first, ...rest] = [...worker.starts];
    for (const delivery of rest) delivery.ack();
    await waitFor("two messages to go", async () => (await messages("TASKMESH_START")) === 1);
    // The first message is delivered again for the sake of its first start; what was acked or is held is given to nobody twice.
    for (const delivery of rest.slice(3)) worker.release(delivery);
    worker.release(first!);
    await waitFor("the first start again", () => worker.of("packed-0").length === 2);
    expect(worker.of("packed-0").map(({ redelivered }) => redelivered)).toEqual([false, true]);
    expect(worker.of("packed-1")).toHaveLength(1);
    worker.of("packed-0")[1]!.ack();
    await waitFor("the last message to go", async () => (await messages("TASKMESH_START")) === 0);
  });

  it("never gives a worker more starts than it has slots, however large the packs are", async () => {
    const mesh = await jetstreamMesh();
    cleanups.push(() => mesh.close());
    const coordinator = await mesh.carrier("oversized");
    const lane = newLane();
    const worker = await mesh.worker(coordinator, [{ lane, slots: 3, packMax: 1 }]);
    worker.onStart = (delivery) => setTimeout(() => void worker.finish(delivery).catch(() => {}), 5);
    const runIds = Array.from({ length: 40 }, (_, i) => `large-${i}`);
    await Promise.all(runIds.map((runId) => coordinator.publish(lane, runId, { packMax: 8 })));
    await waitFor("all completions", () => new Set(coordinator.completed).size === 40);
    expect(worker.heldMax).toBeLessThanOrEqual(3);
    // What waited for a slot may have gone to others meanwhile, so it says so.
    expect(worker.starts.some(({ redelivered }) => redelivered)).toBe(true);
  });

  it("sends starts with a trace, and large ones, alone", async () => {
    const mesh = await jetstreamMesh();
    cleanups.push(() => mesh.close());
    const coordinator = await mesh.carrier("alone");
    const lane = newLane();
    const worker = await mesh.worker(coordinator, [{ lane, slots: 64, packMax: 4 }]);
    const headers = { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" };
    await Promise.all([
      coordinator.publish(lane, "plain-1", { packMax: 4 }),
      coordinator.publish(lane, "traced", { packMax: 4, headers }),
      coordinator.publish(lane, "large", { packMax: 4, size: 100_000 }),
      coordinator.publish(lane, "plain-2", { packMax: 4 }),
    ]);
    expect(await mesh.broker!.messages("TASKMESH_START")).toBe(3);
    await waitFor("all starts", () => worker.starts.length === 4);
    expect(worker.of("traced")[0]?.headers).toEqual(headers);
    expect(worker.of("plain-1")[0]?.headers).toBeUndefined();
  });
});
