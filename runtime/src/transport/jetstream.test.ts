/**
 * What only a JetStream carrier can meet: a broker that comes late, foreign streams, data that was rolled back, a stuck consumer.
 */
import { jetstreamManager, RetentionPolicy } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { afterEach, describe, expect, it } from "vitest";
import { type NatsFixture, newNatsServerBin, startNats } from "../../../test/fixtures/nats.js";
import { freePort } from "../../../test/fixtures/ports.js";
import { waitFor } from "../../../test/fixtures/process.js";
import { CarrierProbe, jetstreamMesh, newLane } from "../../../test/fixtures/transport-mesh.js";
import { createJetStreamCarrier } from "./jetstream.js";
import { laneConsumer } from "./transport.js";

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
});
