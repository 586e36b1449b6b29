/** For tests: engine rooms over a real Postgres and the memory transport, with plans and lanes that are values, and a worker. */
import { CompleteStep, type StartStep } from "@taskmesh/proto";
import { createLogger, DbClock, laneConsumer, laneSubject, MemoryBus, type WorkTransport } from "@taskmesh/runtime";
import { waitFor } from "../../../test/fixtures/process.js";
import type { ChainPlan } from "../engine/plan.js";
import { value } from "../engine/plan-fixture.js";
import type { Db } from "../store/db.js";
import { openPostgres } from "../store/postgres.js";
import { readEvents, type StoredEvent } from "../store/run-reads.js";
import { createRunStore } from "../store/run-store.js";
import { loadRuns, type StoredRun } from "../store/runs.js";
import { createEngineRoom, type EngineRoom } from "./engine-room.js";
import type { LaneState, Launcher, StartCommand } from "./ports.js";
import type { EventWork, Settled } from "./work.js";

const lane = { namespaceId: 1, queueId: 1, laneId: 1 };

export interface Room extends EngineRoom {
  readonly id: string;
  /** Places in the only lane; 0: no worker is live. Tell the room of a change with `laneChanged`. */
  window: number;
  readonly counts: { batches: number; work: number; conflicts: number };
  laneChanged(): void;
  command(plan: ChainPlan, more?: Partial<StartCommand>): StartCommand;
  startRun(plan: ChainPlan, more?: Partial<StartCommand>): Promise<string>;
  /** Submits an event and answers how it was settled. */
  submit(runId: string, event: EventWork["event"], more?: Partial<EventWork>): Promise<Settled>;
  /** Ends it without a word, as a crash does: nothing more is sent, nothing confirmed. */
  close(): Promise<void>;
}

export interface RoomOptions {
  url: string;
  /** For the commits, where it differs. */
  commitsUrl?: string;
  plans: readonly ChainPlan[];
  bus?: MemoryBus;
  id?: string;
  window?: number;
  launcher?: Launcher;
}

/** Opens a room whose carrier runs; `start` it where sweeping and refilling matter. */
export async function openRoom(options: RoomOptions): Promise<Room> {
  const { url, plans, bus = new MemoryBus(), id = "room1" } = options;
  const commits = openPostgres({ url: options.commitsUrl ?? url, connectionsMax: 1, statementTimeoutMs: 2_000 });
  const db = openPostgres({ url, connectionsMax: 4 });
  const carrier = bus.carrier(id);
  const counts = { batches: 0, work: 0, conflicts: 0 };
  const listeners: (() => void)[] = [];
  const state = (): LaneState => ({ lane, window: room.window, packMax: 1 });
  const contracts = plans.flatMap((plan) => plan.steps.map((step) => `${step.method}@${step.contract}`));
  const planOfMethod = (method: string): ChainPlan => {
    const found = plans.find((plan) => plan.method === method);
    if (!found) throw new Error(`no plan of ${method}`);
    return found;
  };
  const engine = createEngineRoom({
    commits: createRunStore(commits),
    store: createRunStore(db),
    carrier,
    catalogue: {
      laneFor: () => (room.window > 0 ? state() : undefined),
      liveLanes: () => (room.window > 0 ? [{ namespaceId: 1, taskQueue: "test", state: state(), contracts }] : []),
      onChange: (listener) => void listeners.push(listener),
      coordinators: () => [id],
    },
    plans: {
      current: async (_namespaceId, method) => planOfMethod(method),
      pinned: async (_namespaceId, method) => planOfMethod(method),
    },
    clock: new DbClock(),
    coordinatorId: id,
    ...(options.launcher ? { launcher: options.launcher } : {}),
    log: createLogger("test", { level: "silent" }),
    meters: {
      settled: () => {},
      garbage: () => {},
      conflicts(runs) {
        counts.conflicts += runs;
      },
      committed({ work }) {
        counts.batches += 1;
        counts.work += work;
      },
      commitFailed: () => {},
      written: () => {},
      sent: () => {},
      wiped: () => {},
    },
  });
  const command = (plan: ChainPlan, more: Partial<StartCommand> = {}): StartCommand => ({
    namespaceId: 1,
    namespace: "default",
    plan,
    input: value("in"),
    labels: {},
    priority: 0,
    ...more,
  });
  const room: Room = {
    ...engine,
    id,
    window: options.window ?? 1_000,
    counts,
    laneChanged() {
      for (const listener of listeners) listener();
    },
    command,
    startRun: async (plan, more) => (await engine.intake.startRun(command(plan, more))).runId,
    submit: (runId, event, more = {}) =>
      new Promise((settle, fail) => {
        const work = { kind: "event" as const, runId, event, fresh: false, tries: 0, bytes: 64, ...more };
        engine.pipeline.submit({ ...work, settle, fail });
      }),
    async close() {
      await Promise.all([commits.close(), db.close(), carrier.stop()]);
    },
  };
  await carrier.start(engine.listener);
  await carrier.ensureLane(lane);
  return room;
}

/** URL of the Postgres database behind `db`, for rooms with connections of their own. */
export async function urlOf(db: Db): Promise<string> {
  const [row] = await db.query<{ name: string; port: string }>(
    "select current_database()::text as name, current_setting('port') as port",
  );
  return `postgres://postgres@127.0.0.1:${row!.port}/${row!.name}`;
}

/** A worker of the only lane: `handle` says what an attempt puts out; a promise that never settles holds its slot. */
export async function openWorker(
  bus: MemoryBus,
  handle: (start: StartStep) => Promise<string> | string,
  slots = 1_000,
): Promise<{ starts: StartStep[]; transport: WorkTransport }> {
  const transport = bus.work({ namespaceId: 1, sessionId: "s1" });
  const starts: StartStep[] = [];
  const grant = { taskQueue: "test", subject: laneSubject(lane), consumer: laneConsumer(lane), slots, packMax: 1 };
  await transport.open([grant], {
    async onStart(delivery) {
      const { start } = delivery;
      starts.push(start);
      const output = Buffer.from(await handle(start));
      transport.complete(start.reportTo, completionOf(start, output), () => {
        delivery.ack();
        delivery.release();
      });
    },
    onProbe: () => {},
    onClosed: () => {},
  });
  return { starts, transport };
}

/** The report of an attempt that succeeded. */
export function completionOf(start: StartStep, output: Buffer): CompleteStep {
  const { runId, stepId, item, attempt, lease } = start;
  const data = { $case: "inline" as const, value: output };
  const payload = { contract: "c", keyId: "", sizeBytes: BigInt(output.length), sha256: Buffer.alloc(32), data };
  const outcome = { $case: "output" as const, value: payload };
  return { ...CompleteStep.create(), runId, stepId, item, attempt, lease, sessionId: "s1", executionMs: 1, outcome };
}

/** A stored run, which must exist. */
export async function stored(db: Db, runId: string): Promise<StoredRun> {
  const found = (await loadRuns(db, [runId])).get(runId);
  if (!found) throw new Error(`run ${runId} is not stored`);
  return found;
}

/** The whole history of a run. */
export const historyOf = (db: Db, runId: string): Promise<StoredEvent[]> =>
  readEvents(db, runId, { afterSeq: 0, limit: 10_000, payloads: true });

/** Waits until all these runs have ended. */
export async function allEnded(db: Db, runIds: readonly string[], withinMs = 30_000): Promise<void> {
  await waitFor(
    "runs to end",
    async () => {
      const [row] = await db.query<{ open: number }>(
        "select count(*)::int as open from unnest($1::text::uuid[]) t(id) left join runs r on r.id = t.id where r.ended_at is null",
        [`{${runIds.join(",")}}`],
      );
      return row?.open === 0;
    },
    withinMs,
  );
}
