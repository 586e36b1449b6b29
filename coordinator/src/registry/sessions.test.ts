import { CancelReason, CompleteStep, type Worker } from "@taskmesh/proto";
import { createLogger, MemoryBus, unaryCall } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { leftSessions } from "../store/coordinators.js";
import { createCatalogue } from "./catalogue.js";
import { createCoordinators } from "./coordinators.js";
import { createHeard } from "./heard.js";
import { defaultIntervals } from "./intervals.js";
import {
  attemptBeat,
  openTestDatabase,
  registration,
  shortIntervals,
  startTestCoordinator,
  stopDatabases,
  type TestCoordinator,
  type TestDatabase,
  type TestService,
  TestWorker,
  waitFor,
} from "./registry-fixture.js";

afterAll(stopDatabases);

const service: TestService = { package: "acme.pages.v1" };
const log = createLogger("test", { level: "silent" });

describe.each(["pglite", "postgres"] as const)("sessions on %s", (kind) => {
  let database: TestDatabase;
  let coordinator: TestCoordinator;
  const others: TestCoordinator[] = [];
  /** "<lapsed> by <survivor>" */
  const finished: string[] = [];
  const finishing = (coordinatorId: string) => ({
    coordinatorId,
    onCoordinatorLapsed: async (id: string): Promise<void> => void finished.push(`${id} by ${coordinatorId}`),
  });

  beforeEach(async () => {
    finished.length = 0;
    database = await openTestDatabase(kind);
    coordinator = await startTestCoordinator(database.db, finishing("c1"));
  });
  afterEach(async () => {
    await Promise.all(others.splice(0).map((other) => other.stop()));
    await coordinator.stop();
    await database.dispose();
  });

  const workers = async (from = coordinator): Promise<Worker[]> =>
    (await unaryCall(from.client, from.client.listWorkers, { namespace: "default" })).workers;
  const worker = async (id: string): Promise<Worker | undefined> =>
    (await workers()).find((one) => one.sessionId === id);
  const liveSlots = (from = coordinator): number =>
    [...from.registry.catalogue.slotsOf(1).values()].reduce((sum, slots) => sum + slots, 0);
  const second = async (bus = coordinator.bus): Promise<TestCoordinator> => {
    const other = await startTestCoordinator(database.another(), { bus, coordinatorId: "c2" });
    others.push(other);
    return other;
  };

  it("answers beats, binds what they list, and shows it in the list of workers", async () => {
    const one = await TestWorker.start(coordinator, registration([service], 4), 30);
    one.attempts = [attemptBeat("lease1"), { ...attemptBeat("lease2"), startToCloseMs: 90_000 }];
    await waitFor("both bindings", () => one.stream.replies.some((reply) => reply.boundLeases.length === 2));
    expect([...coordinator.intake.asked].sort()).toEqual([
      ["lease1", 0],
      ["lease2", 90_000],
    ]);
    await waitFor("the count", async () => (await worker(one.sessionId))?.queues[0] !== undefined);
    expect(await worker(one.sessionId)).toMatchObject({ host: "test", draining: false, assignable: true });
    expect(liveSlots()).toBe(4);
    await one.leave();
  });

  it("cancels what the intake calls stale or cancelling, and what has no valid name", async () => {
    const one = await TestWorker.start(coordinator, registration([service], 4), 30);
    coordinator.intake.verdicts.set("gone11", "stale").set("stop22", "cancelling");
    const nameless = { ...attemptBeat("name33"), runId: "no uuid" };
    one.attempts = [attemptBeat("gone11"), attemptBeat("stop22"), nameless];
    await waitFor("cancels", () => one.stream.replies.some((reply) => reply.cancels.length === 3));
    const reply = one.stream.replies.find((found) => found.cancels.length === 3);
    expect(Object.fromEntries((reply?.cancels ?? []).map((cancel) => [cancel.lease, cancel.reason]))).toEqual({
      gone11: CancelReason.CANCEL_REASON_LEASE_LOST,
      name33: CancelReason.CANCEL_REASON_LEASE_LOST,
      stop22: CancelReason.CANCEL_REASON_CANCELLED,
    });
    expect(reply?.boundLeases).toEqual(["stop22"]);
    await one.leave();
  });

  it("gives up a bound attempt that its worker no longer lists, and not one that it lists", async () => {
    const one = await TestWorker.start(coordinator, registration([service], 4), 30);
    one.attempts = [attemptBeat("kept11"), attemptBeat("lost22")];
    await waitFor("both bindings", () => new Set(coordinator.intake.bound).size === 2);
    one.attempts = [attemptBeat("kept11")];
    await waitFor("the loss", () => coordinator.intake.lost.length > 0);
    await waitFor("more beats", () => one.stream.replies.length > 40);
    expect(coordinator.intake.lost.map((loss) => loss.lease)).toEqual(["lost22"]);
    await one.leave();
  });

  it("ends a silent session, gives up its attempts and takes its lanes from the list", async () => {
    const one = await TestWorker.start(coordinator, registration([service], 4), 30);
    one.attempts = [attemptBeat("lease1")];
    await waitFor("the binding", () => coordinator.intake.bound.length > 0);
    await waitFor("the lane", () => liveSlots() === 4);
    await one.die();
    expect(await worker(one.sessionId)).toBeDefined();
    await waitFor("the lapse", () => liveSlots() === 0);
    await waitFor("the loss", () => coordinator.intake.lost.length > 0);
    expect(new Set(coordinator.intake.lost.map((loss) => loss.lease))).toEqual(new Set(["lease1"]));
    expect(await worker(one.sessionId)).toBeUndefined();
  });

  it("cuts off a worker that keeps its stream but does not beat", async () => {
    const one = await TestWorker.start(coordinator, registration([service]), 30);
    one.silence();
    expect(await one.stream.ended()).toMatchObject({ reason: "SESSION_NOT_FOUND" });
    await waitFor("the lapse", async () => (await workers()).length === 0);
  });

  it("ends a session at once when its worker closes the stream", async () => {
    const one = await TestWorker.start(coordinator, registration([service]), 30);
    one.attempts = [attemptBeat("lease1")];
    await waitFor("the binding", () => coordinator.intake.bound.length > 0);
    await one.leave();
    await waitFor("the end", async () => (await workers()).length === 0);
    await waitFor("the loss", () => coordinator.intake.lost.length > 0);
    // The search for orphans may come first: then nothing is left to do for the other.
    expect(new Set(coordinator.intake.lost.map((loss) => loss.lease))).toEqual(new Set(["lease1"]));
  });

  it("gives up attempts whose session is gone without a trace", async () => {
    await coordinator.intake.bind({ ...attemptBeat("orphan"), attempt: 1 }, "session-that-never-was");
    await waitFor("the loss", () => coordinator.intake.lost.length > 0);
    expect(coordinator.intake.lost).toEqual([{ lease: "orphan", why: "its worker is gone" }]);
  });

  it("gives no new work to a worker whose nonces don't come back, asks it to reopen, and takes it back", async () => {
    const one = await TestWorker.start(coordinator, registration([service], 4), 30);
    one.attempts = [attemptBeat("lease1")];
    await waitFor("the lane", () => liveSlots() === 4);
    one.echo = false;
    await waitFor("the lane to go", () => liveSlots() === 0);
    await waitFor("the request to reopen", () => one.stream.replies.some((reply) => reply.reopenTransport));
    await waitFor("the flag", async () => (await worker(one.sessionId))?.assignable === false);
    expect(coordinator.intake.lost).toEqual([]);
    expect(one.stream.status).toBeUndefined();
    one.echo = true;
    await waitFor("the lane to come back", () => liveSlots() === 4);
    await one.leave();
  });

  it("gives no new work to a draining worker and keeps what it runs", async () => {
    const one = await TestWorker.start(coordinator, registration([service], 4), 30);
    one.attempts = [attemptBeat("lease1")];
    await waitFor("the lane", () => liveSlots() === 4);
    one.draining = true;
    await waitFor("the lane to go", () => liveSlots() === 0);
    expect(await worker(one.sessionId)).toMatchObject({ draining: true });
    await waitFor("more beats", () => one.stream.replies.length > 20);
    expect(coordinator.intake.lost).toEqual([]);
    one.attempts = [];
    await one.leave();
    await waitFor("the end", async () => (await workers()).length === 0);
  });

  it("resumes a session after its stream broke: same id, nothing lost", async () => {
    const one = await TestWorker.start(coordinator, registration([service], 4), 30);
    one.attempts = [attemptBeat("lease1")];
    await waitFor("the binding", () => coordinator.intake.bound.length > 0);
    await one.die();
    const again = await TestWorker.start(coordinator, { ...registration([service], 4), sessionId: one.sessionId }, 30);
    again.attempts = [attemptBeat("lease1")];
    expect(again.sessionId).toBe(one.sessionId);
    await waitFor("beats", () => again.stream.replies.length > 60);
    expect(coordinator.intake.lost).toEqual([]);
    expect(await workers()).toHaveLength(1);
    await again.leave();
  });

  it("lets the newer of two streams of one session fence the older", async () => {
    const one = await TestWorker.start(coordinator, registration([service]), 30);
    const two = await TestWorker.start(coordinator, { ...registration([service]), sessionId: one.sessionId }, 30);
    expect(two.sessionId).toBe(one.sessionId);
    expect(await one.stream.ended()).toMatchObject({ reason: "SESSION_NOT_FOUND" });
    await two.stream.beat();
    expect(await workers()).toHaveLength(1);
    await two.leave();
  });

  it("moves a session to another coordinator with what it runs, and fences the stream that it had before", async () => {
    const other = await second();
    const one = await TestWorker.start(coordinator, registration([service], 4), 30);
    one.attempts = [attemptBeat("lease1")];
    await waitFor("the binding", () => coordinator.intake.bound.length > 0);
    const two = await TestWorker.start(other, { ...registration([service], 4), sessionId: one.sessionId }, 30);
    two.attempts = [attemptBeat("lease1")];
    expect(two.sessionId).toBe(one.sessionId);
    expect(await one.stream.ended()).toMatchObject({ reason: "SESSION_NOT_FOUND" });
    await waitFor("beats", () => two.stream.replies.length > 60);
    expect([...coordinator.intake.lost, ...other.intake.lost]).toEqual([]);
    expect(await workers()).toHaveLength(1);
    await two.leave();
    await waitFor("the end everywhere", () => liveSlots() === 0 && liveSlots(other) === 0);
  });

  it("shows a worker at every coordinator and shares its slots among them", async () => {
    const other = await second();
    await waitFor("each other", () =>
      [coordinator, other].every((one) => one.registry.coordinators.live().length === 2),
    );
    const one = await TestWorker.start(coordinator, registration([service], 5), 30);
    await waitFor("both", () => liveSlots() === 5 && liveSlots(other) === 5);
    const windows = [coordinator, other].map((from) => from.registry.catalogue.liveLanes()[0]?.state.window);
    expect(windows).toEqual([5, 5]);
    await one.leave();
  });

  it("gives steps that are pinned to an older revision to workers of a newer one, where that is safe", async () => {
    const { catalogue } = coordinator.registry;
    const old = await TestWorker.start(coordinator, registration([service], 2));
    await waitFor("the lane", () => liveSlots() === 2);
    const [method, contract] = catalogue.liveLanes()[0]?.contracts[0]?.split("@") ?? [];
    const target = { namespaceId: 1, taskQueue: "queue", method: method ?? "", contract: contract ?? "" };
    const oldLane = catalogue.laneFor(target)?.lane;
    const renamed = { ...service, package: "acme.pages.v1", file: "other.proto", inputFields: ["lang"] };
    const newer = await TestWorker.start(coordinator, registration([renamed], 3));
    await waitFor("both", () => liveSlots() === 5);
    expect(catalogue.laneFor(target)?.lane).toEqual(oldLane);
    await old.leave();
    await waitFor("the newer alone", () => liveSlots() === 3);
    expect(catalogue.laneFor(target)?.lane.laneId).not.toBe(oldLane?.laneId);
    expect(catalogue.liveLanes()[0]?.contracts).toContain(`${method}@${contract}`);
    await newer.leave();
    await waitFor("nobody", () => liveSlots() === 0);
    expect(catalogue.laneFor(target)).toBeUndefined();
  });

  it("sends its workers to another coordinator when it drains, and keeps their sessions", async () => {
    const other = await second();
    const one = await TestWorker.start(coordinator, registration([service], 4), 30);
    await coordinator.registry.sessions.drain();
    await waitFor("the word", () => one.stream.replies.some((reply) => reply.drain));
    expect(await one.stream.ended()).toBeNull();
    await expect(coordinator.connect().register(registration([service]))).rejects.toMatchObject({ reason: "DRAINING" });
    const two = await TestWorker.start(other, { ...registration([service], 4), sessionId: one.sessionId }, 30);
    expect(two.sessionId).toBe(one.sessionId);
    await two.leave();
  });

  it("hands what a lapsed coordinator left to exactly one survivor and forgets it in the end", async () => {
    for (const id of ["c3", "c4"]) {
      others.push(await startTestCoordinator(database.another(), { bus: new MemoryBus(), ...finishing(id) }));
    }
    await database.db.query(
      "insert into coordinators (id, address, last_beat_at) values ('dead', '', now() - interval '1 hour')",
    );
    await waitFor("the adoption", () => finished.length > 0);
    await waitFor("the end of it", async () => {
      const rows = await database.db.query<{ id: string }>("select id from coordinators");
      return !rows.some((row) => row.id === "dead");
    });
    expect(finished).toEqual([expect.stringMatching(/^dead by c[134]$/)]);
  });

  it("judges what a lapsed coordinator left only when its workers are back and their reports are read", async () => {
    const one = await TestWorker.start(coordinator, registration([service], 4), 30);
    const bus = new MemoryBus();
    const carrier = bus.carrier("reader");
    const held: (() => void)[] = [];
    await carrier.start({ onCompletions: (delivery) => held.push(() => delivery.ack()), onWiped: () => {} });
    const work = bus.work({ namespaceId: 1, sessionId: "s" });
    await work.open([], { onStart() {}, onProbe() {}, onClosed() {} });
    await new Promise<void>((stored) =>
      work.complete("dead", CompleteStep.fromPartial({ runId: "r" }), () => stored()),
    );
    const sessionsOf = (id: string) => database.db.query("update sessions set coordinator_id = $1::text", [id]);
    await sessionsOf("dead");
    const steps: string[] = [];
    let resumedAtMs = 0;
    const heard = createHeard({ carrier, coordinators: async () => ["reader", "dead"], log });
    const reader = createCoordinators({
      db: database.another(),
      carrier,
      heard: {
        caughtUp(...asked) {
          steps.push("reports");
          return heard.caughtUp(...asked);
        },
      },
      id: "reader",
      address: "",
      exclusive: false,
      intervals: { ...defaultIntervals, ...shortIntervals, adoptionWaitMs: 60_000 },
      onLapsed: async (id, beforeMs) => {
        steps.push(`judges ${id}`);
        expect(beforeMs, "what went on meanwhile is not its").toBeLessThan(resumedAtMs);
      },
      onChange: () => {},
      log,
    });
    await reader.start();
    await database.db.query(
      `insert into coordinators (id, address, last_beat_at, adopted_by, adopted_at)
       values ('dead', '', now() - interval '1 hour', 'reader', now())`,
    );
    await waitFor("the delivery", () => held.length === 1);
    expect(steps).toEqual([]);
    const [now] = await database.db.query<{ ms: number }>(
      "select (extract(epoch from clock_timestamp()) * 1000)::float8 as ms",
    );
    resumedAtMs = now!.ms;
    await sessionsOf("c1");
    await waitFor("the wait for the reports", () => steps.length > 0);
    expect(steps).toEqual(["reports"]);
    held[0]!();
    await waitFor("the judgement", () => steps.length > 1);
    expect(steps).toEqual(["reports", "judges dead"]);
    await reader.stop();
    await one.leave();
  });

  it("waits for the workers of a dead coordinator while others are coming back", async () => {
    const [returning, local] = [
      await TestWorker.start(coordinator, registration([service]), 30),
      await TestWorker.start(coordinator, registration([service]), 30),
    ];
    await waitFor("both to be known", async () => (await workers()).length === 2);
    await database.db.query(
      `insert into sessions (id, namespace_id, coordinator_id, stream, host, pid, version, sdk, labels, transport, told, last_beat_at)
       select 'coming', namespace_id, coordinator_id, 1, host, pid, version, sdk, labels, transport, false, now() + interval '1 hour'
       from sessions limit 1`,
    );
    await Promise.all([returning.die(), local.die()]);
    await database.db.query("update sessions set coordinator_id = 'dead' where id = $1::text", [returning.sessionId]);
    const left = async (): Promise<string[]> =>
      (await database.db.query<{ id: string }>("select id from sessions where id <> 'coming'")).map(({ id }) => id);
    await waitFor("the lapse of the one that no coordinator's death excuses", async () => (await left()).length === 1);
    expect(await left()).toEqual([returning.sessionId]);
    await database.db.query("update sessions set told = true where id = 'coming'");
    await waitFor("the lapse of the other", async () => (await left()).length === 0);
  });

  it("counts a worker as back when what it lists is decided", async () => {
    const isLeft = () => leftSessions(database.db, "dead");
    const stream = coordinator.connect();
    const { sessionId } = await stream.register(registration([service], 4));
    expect(await isLeft(), "it has said nothing").toBe(true);
    let decide = (): void => {};
    coordinator.intake.hold = new Promise((resolve) => {
      decide = resolve;
    });
    const attempts = [attemptBeat("a")];
    expect((await stream.beat({ attempts })).boundLeases).toEqual([]);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(await isLeft(), "nothing is decided").toBe(true);
    decide();
    expect((await stream.beat({ attempts })).boundLeases).toEqual(["a"]);
    await waitFor("the word", async () => !(await isLeft()));
    // Again for each registration.
    const resumed = coordinator.connect();
    await resumed.register({ ...registration([service], 4), sessionId });
    expect(await isLeft()).toBe(true);
    await resumed.beat({});
    await waitFor("the second word", async () => !(await isLeft()));
  });

  it("lets another survivor finish when the one that had begun lapses too", async () => {
    await database.db.query(
      `insert into coordinators (id, address, last_beat_at, adopted_by, adopted_at)
       values ('dead', '', now() - interval '1 hour', 'gone', now()), ('gone', '', now() - interval '1 hour', null, null)`,
    );
    await waitFor("both", () => finished.length >= 2);
    expect([...finished].sort()).toEqual(["dead by c1", "gone by c1"]);
  });

  it("keeps the lanes that have workers, and no others", async () => {
    const kept: number[] = [];
    const catalogue = createCatalogue({
      db: database.another(),
      carrier: { ensureLane: async () => {}, keepLanes: (lanes) => void kept.push(lanes.length) },
      intervals: { ...defaultIntervals, ...shortIntervals },
      coordinators: () => ["c9"],
      log,
    });
    await catalogue.start();
    const one = await TestWorker.start(coordinator, registration([service], 4), 30);
    await waitFor("its lane", () => kept.at(-1) === 1);
    await one.leave();
    await waitFor("none", () => kept.at(-1) === 0);
    await catalogue.stop();
  });

  it("ends a stream that begins with a beat, registers twice, or says nothing", async () => {
    const beating = coordinator.connect();
    await expect(beating.beat()).rejects.toMatchObject({ reason: "ARGUMENT_INVALID" });
    const twice = coordinator.connect();
    await twice.register(registration([service]));
    twice.send(registration([service]));
    expect(await twice.ended()).toMatchObject({ reason: "ARGUMENT_INVALID" });
    const silent = coordinator.connect();
    silent.call.end();
    expect(await silent.ended()).toBeNull();
  });

  it("refuses a beat that lists more attempts than the worker can run", async () => {
    const stream = coordinator.connect();
    await stream.register(registration([service], 1));
    const attempts = Array.from({ length: 1_000 }, (_, index) => attemptBeat(`${index}`));
    await expect(stream.beat({ attempts })).rejects.toMatchObject({ reason: "ARGUMENT_INVALID" });
  });

  it("holds back a worker that floods it with beats, and answers all of them in order", async () => {
    const stream = coordinator.connect();
    await stream.register(registration([service], 1));
    await Promise.all(Array.from({ length: 200 }, () => stream.beat()));
    const numbers = stream.replies.map((reply) => reply.number);
    expect(numbers).toEqual([...numbers].sort((a, b) => Number(a - b)));
    expect(numbers).toHaveLength(200);
    stream.call.end();
  });
});

describe("a slow reader", () => {
  it("is cut off, and others are served meanwhile", async () => {
    const database = await openTestDatabase("pglite");
    const coordinator = await startTestCoordinator(database.db, { intervals: { patienceMs: 500, beatMs: 50 } });
    const stream = coordinator.connect();
    await stream.register(registration([service], 10_000));
    stream.call.pause();
    // Each reply names every lease: a few megabytes fill the windows of stream and socket.
    const attempts = Array.from({ length: 5_000 }, (_, index) => ({
      ...attemptBeat("x"),
      lease: `${index}`.padEnd(120, "x"),
    }));
    for (const attempt of attempts) coordinator.intake.verdicts.set(attempt.lease, "stale");
    const flood = setInterval(() => void stream.beat({ attempts }).catch(() => {}), 20);
    const other = await TestWorker.start(coordinator, registration([service]), 30);
    await waitFor(
      "the end of the slow one",
      () => coordinator.registry.sessions.find(stream.registered?.sessionId ?? "") === undefined,
      30_000,
    );
    clearInterval(flood);
    const before = other.stream.replies.length;
    await waitFor("replies to the other", () => other.stream.replies.length > before + 3);
    stream.call.cancel();
    await other.leave();
    await coordinator.stop();
  });
});
