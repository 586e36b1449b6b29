/**
 * Operator mode: a worker's user can do its own work and nothing else, whatever its client tries. On each nats-server version.
 */
import { connect, jwtAuthenticator, type NatsConnection } from "@nats-io/transport-node";
import { EmittedOutput, type JetStreamAccess } from "@taskmesh/proto";
import {
  createJetStreamCarrier,
  type JetStreamCarrier,
  laneConsumer,
  laneSubject,
  OpenNatsRefused,
  openJetStreamWork,
} from "@taskmesh/runtime";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type NatsFixture, natsServerBin, newNatsServerBin, startNats } from "../fixtures/nats.js";
import { makeOperatorMode, type OperatorMode } from "../fixtures/nats-operator.js";
import { waitFor } from "../fixtures/process.js";
import { CarrierProbe, grantOf, newLane, WorkerProbe } from "../fixtures/transport-mesh.js";

const binaries = [natsServerBin(), newNatsServerBin()].filter((binary) => binary !== undefined);
const version = (binary: string): string => (binary === binaries[0] ? "oldest server" : "newer server");

async function accessOf(
  carrier: JetStreamCarrier,
  session: Parameters<JetStreamCarrier["access"]>[0],
): Promise<JetStreamAccess> {
  const access = await carrier.access(session);
  if (!access) throw new Error("the carrier gives no access");
  return access;
}

/** A client with a worker's credentials and bad manners. */
async function hostile(access: JetStreamAccess): Promise<{ nc: NatsConnection; denials: string[] }> {
  const seed = new TextEncoder().encode(access.userSeed);
  const nc = await connect({
    servers: access.servers.map((server) => server.replace("nats://", "")),
    authenticator: jwtAuthenticator(access.userJwt, seed),
    inboxPrefix: access.inboxPrefix,
  });
  const denials: string[] = [];
  void (async () => {
    for await (const status of nc.status()) if (status.type === "error") denials.push(status.error.message);
  })();
  return { nc, denials };
}

describe.each(binaries)("worker credentials, %s", (binary) => {
  let nats: NatsFixture;
  let operator: OperatorMode;
  const cleanups: (() => Promise<void>)[] = [];
  const label = version(binary).replace(" ", "-");
  let coordinators = 0;

  beforeAll(async () => {
    operator = await makeOperatorMode();
    nats = await startNats({ binary, config: operator.config });
  });
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });
  afterAll(() => nats.dispose());

  const startCarrier = async (
    more: { userLifeMs?: number; seed?: string } = {},
  ): Promise<{ carrier: JetStreamCarrier; probe: CarrierProbe }> => {
    coordinators += 1;
    const [account] = operator.accounts;
    const coordinatorId = `c-${label}-${coordinators}`;
    const carrier = createJetStreamCarrier({
      coordinatorId,
      servers: [nats.url],
      credentials: account!.credentials,
      accountSeed: more.seed ?? account!.signingSeed,
      ...(more.userLifeMs ? { userLifeMs: more.userLifeMs } : {}),
    });
    const probe = await new CarrierProbe(coordinatorId, carrier).start();
    cleanups.push(() => carrier.stop());
    return { carrier, probe };
  };

  it.each(["signingSeed", "seed"] as const)(
    "lets a worker do its own work with a user made from the %s",
    async (key) => {
      const { carrier, probe } = await startCarrier({ seed: operator.accounts[0]![key] });
      const lane = newLane();
      await carrier.ensureLane(lane);
      const access = await accessOf(carrier, { ...lane, sessionId: `own-${key}-${label}`, lanes: [lane] });
      const worker = new WorkerProbe(openJetStreamWork(access), `own-${key}-${label}`);
      cleanups.push(() => worker.transport.close());
      worker.onStart = (delivery) => void worker.finish(delivery);
      await worker.open([grantOf(lane, 5)]);
      await probe.publish(lane, "mine");
      await waitFor("the completion", () => probe.completed.includes("mine"));
      carrier.probe(lane.namespaceId, worker.sessionId, "nonce");
      await waitFor("the probe", () => worker.probes.includes("nonce"));
      let emitted = 0;
      carrier.onEmitted({ namespaceId: lane.namespaceId, runId: "mine" }, () => {
        emitted += 1;
      });
      await waitFor("an output", async () => {
        await worker.transport.emit(EmittedOutput.fromPartial({ runId: "mine", attempt: 1, number: 1n }));
        return emitted > 0;
      });
    },
  );

  it("denies everything else to a hostile client", async () => {
    const { carrier, probe } = await startCarrier();
    const mine = newLane();
    const others = newLane();
    for (const lane of [mine, others]) await carrier.ensureLane(lane);
    await probe.publish(others, "secret");
    const access = await accessOf(carrier, { ...mine, sessionId: `hostile-${label}`, lanes: [mine] });
    const { nc, denials } = await hostile(access);
    cleanups.push(() => nc.close());
    const heard: string[] = [];
    const subjects = [
      ">",
      "$JS.>",
      "start.>",
      `done.${mine.namespaceId}.>`,
      `out.${mine.namespaceId}.>`,
      "_INBOX.>",
      "_INBOX_another-session.>",
      `probe.${mine.namespaceId}.another-session`,
      "$SYS.>",
    ];
    for (const subject of subjects)
      nc.subscribe(subject, { callback: (error, message) => void (error ?? heard.push(message.subject)) });
    await nc.flush();
    await waitFor("denied subscriptions", () => denials.length >= subjects.length);

    const reply = `${access.inboxPrefix}.stolen`;
    const stolen: string[] = [];
    nc.subscribe(reply, { callback: (error, message) => void (error ?? stolen.push(message.string())) });
    const publishes = [
      laneSubject(mine),
      laneSubject(others),
      `done.${mine.namespaceId + 1}.${probe.id}`,
      `out.${mine.namespaceId + 1}.run`,
      `probe.${mine.namespaceId}.another-session`,
      "_INBOX_another-session.x",
      `$JS.API.CONSUMER.MSG.NEXT.TASKMESH_START.${laneConsumer(others)}`,
      `$JS.API.CONSUMER.INFO.TASKMESH_START.${laneConsumer(others)}`,
      `$JS.API.CONSUMER.MSG.NEXT.TASKMESH_DONE.done-${probe.id}`,
      `$JS.API.CONSUMER.DELETE.TASKMESH_START.${laneConsumer(mine)}`,
      `$JS.API.CONSUMER.CREATE.TASKMESH_START.mine.${laneSubject(others)}`,
      "$JS.API.STREAM.DELETE.TASKMESH_START",
      "$JS.API.STREAM.PURGE.TASKMESH_DONE",
      "$JS.API.STREAM.MSG.GET.TASKMESH_START",
      "$JS.API.DIRECT.GET.TASKMESH_START",
      "$JS.API.STREAM.CREATE.EVIL",
      "$JS.API.INFO",
      `$JS.ACK.TASKMESH_START.${laneConsumer(others)}.1.1.1.1.0`,
      `$JS.ACK.TASKMESH_DONE.done-${probe.id}.1.1.1.1.0`,
    ];
    const before = denials.length;
    for (const subject of publishes) nc.publish(subject, JSON.stringify({ batch: 10, seq: 1 }), { reply });
    await nc.flush();
    await waitFor("denied publishes", () => denials.length >= before + publishes.length);
    expect(heard).toEqual([]);
    expect(stolen).toEqual([]);
    expect(denials.length).toBe(before + publishes.length);

    // What it attacked is intact.
    const worker = new WorkerProbe(
      openJetStreamWork(await accessOf(carrier, { ...others, sessionId: `owner-${label}`, lanes: [others] })),
      `owner-${label}`,
    );
    cleanups.push(() => worker.transport.close());
    worker.onStart = (delivery) => void worker.finish(delivery);
    await worker.open([grantOf(others, 5)]);
    await waitFor("the completion", () => probe.completed.includes("secret"));
    expect(probe.deliveries).toHaveLength(1);
  });

  it("goes on with renewed credentials after the first ones expired", async () => {
    const { carrier, probe } = await startCarrier({ userLifeMs: 3_000 });
    const lane = newLane();
    await carrier.ensureLane(lane);
    const session = { ...lane, sessionId: `renewed-${label}`, lanes: [lane] };
    const first = await accessOf(carrier, session);
    expect(Number(first.expiresAt?.seconds ?? 0n) * 1000).toBeLessThanOrEqual(Date.now() + 3_000);
    const worker = new WorkerProbe(openJetStreamWork(first), session.sessionId);
    cleanups.push(() => worker.transport.close());
    worker.onStart = (delivery) => void worker.finish(delivery).catch(() => worker.release(delivery));
    await worker.open([grantOf(lane, 5)]);
    await probe.publish(lane, "first");
    await waitFor("the first completion", () => probe.completed.includes("first"));

    // A long-lived user, as a beat's answer brings it in time.
    const longer = createJetStreamCarrier({
      coordinatorId: "minter",
      servers: [nats.url],
      credentials: operator.accounts[0]!.credentials,
      accountSeed: operator.accounts[0]!.signingSeed,
    });
    worker.transport.renew?.(await accessOf(longer, session));
    await waitFor("the first user to expire", () => Date.now() > Number(first.expiresAt!.seconds) * 1000 + 1_000);
    await probe.publish(lane, "second");
    await waitFor("the second completion", () => probe.completed.includes("second"));
    expect(worker.closedWith).toBeUndefined();
  });

  it("does not let a user of an expired session in", async () => {
    const { carrier } = await startCarrier({ userLifeMs: 1_000 });
    const access = await accessOf(carrier, { namespaceId: 1, sessionId: `expired-${label}`, lanes: [] });
    await waitFor("the user to expire", () => Date.now() > Number(access.expiresAt!.seconds) * 1000 + 1_000);
    await expect(hostile(access)).rejects.toThrow(/authorization|expired/i);
  });
});

describe("a NATS account seed", () => {
  it("is needed to let workers dial: without it they come by relay", async () => {
    const { accounts } = await makeOperatorMode();
    const options = { coordinatorId: "c", servers: ["nats://127.0.0.1:4222"], credentials: accounts[0]!.credentials };
    const session = { namespaceId: 1, sessionId: "session", lanes: [] };
    expect(await createJetStreamCarrier(options).access(session)).toBeUndefined();
    const access = await createJetStreamCarrier({ ...options, accountSeed: accounts[0]!.seed }).access(session);
    expect(access?.userJwt).toMatch(/^eyJ/);
  });

  it("must be one, and is not shown when it is not", async () => {
    const { accounts } = await makeOperatorMode();
    const options = { coordinatorId: "c", servers: ["nats://127.0.0.1:4222"], credentials: accounts[0]!.credentials };
    const userSeed = /SU[A-Z2-7]{56}/.exec(accounts[0]!.credentials)![0];
    for (const accountSeed of ["nonsense-that-is-secret", userSeed]) {
      expect(() => createJetStreamCarrier({ ...options, accountSeed })).toThrow(/not the seed of an account/);
      expect(() => createJetStreamCarrier({ ...options, accountSeed })).not.toThrow(accountSeed);
    }
    expect(() => createJetStreamCarrier({ ...options, accountSeed: accounts[0]!.seed })).not.toThrow();
  });
});

describe("open NATS", () => {
  it("is refused on an address that is not this machine, unless it is allowed", () => {
    const remote = { coordinatorId: "c", servers: ["nats://nats.example.com:4222"] };
    expect(() => createJetStreamCarrier(remote)).toThrow(OpenNatsRefused);
    expect(() => createJetStreamCarrier({ ...remote, servers: ["nats://10.0.0.5:4222"] })).toThrow(OpenNatsRefused);
    expect(() => createJetStreamCarrier({ ...remote, servers: ["nats://127.0.0.1.evil.com:4222"] })).toThrow(
      OpenNatsRefused,
    );
    expect(() => createJetStreamCarrier({ ...remote, allowOpenNats: true })).not.toThrow();
    for (const server of ["nats://127.0.0.1:4222", "nats://localhost:4222", "nats://[::1]:4222"]) {
      expect(() => createJetStreamCarrier({ ...remote, servers: [server] })).not.toThrow();
    }
  });
});
