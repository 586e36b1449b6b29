/**
 * A database that is a few maps: the same compare-and-set, the same all-or-nothing batch, the same claims as the SQL of store/. Each statement
 * takes effect at one instant. What it keeps of a run is what the row keeps (the engine's state as encoded bytes), so state that
 * is not encoded is lost here as it would be there.
 *
 * To extend it: an effect that writes a row of a new table gets a case in `#applyEffect`; a new function of RunStore gets a method.
 */
import { EventKind, Payload } from "@taskmesh/proto";
import { childSession } from "../../coordinator/src/engine/children.js";
import type { ChainPlan, Value } from "../../coordinator/src/engine/plan.js";
import { encodeItem, encodeRunState } from "../../coordinator/src/engine/run-codec.js";
import type { Effect } from "../../coordinator/src/engine/run-event.js";
import type { RunState } from "../../coordinator/src/engine/run-state.js";
import { toPayload } from "../../coordinator/src/pipeline/effects.js";
import type { ChildRow } from "../../coordinator/src/store/children.js";
import type { Commit, CommitResult, RunWrite } from "../../coordinator/src/store/commit.js";
import type { ItemOutput } from "../../coordinator/src/store/item-reads.js";
import type { ReadyStep } from "../../coordinator/src/store/ready.js";
import type { RunStore } from "../../coordinator/src/store/run-store.js";
import { notOutputs, placeValue, type RunRow, type StoredRun, toStoredRun } from "../../coordinator/src/store/runs.js";
import type { Ledger } from "./ledger.js";
import type { World } from "./world.js";

interface HistoryRow {
  seq: number;
  kind: EventKind;
  step: number;
  item: number;
  note: string;
  payload: Value | undefined;
}

interface ReadyRow {
  runId: string;
  step: number;
  item: number;
  namespaceId: number;
  taskQueue: string;
  callee: string;
  priority: number;
  readyAtMs: number;
  claimedUntilMs: number;
}

export interface BindingRow {
  runId: string;
  stepId: string;
  step: number;
  item: number;
  attempt: number;
  lease: string;
  session: string;
  boundAtMs: number;
}

/** Text that the model refuses in a payload, as Postgres refuses some values. */
export const poison = "poison";

interface BatchRow {
  runIds: string[];
  version: string;
}

export class ModelStore {
  readonly runs = new Map<string, RunRow>();
  readonly history = new Map<string, HistoryRow[]>();
  readonly ready = new Map<string, ReadyRow>();
  readonly bindings = new Map<string, BindingRow>();
  readonly effectBatches = new Map<string, Map<number, BatchRow>>();
  readonly payloads = new Map<string, Uint8Array>();
  /** Open items of fan-outs. */
  readonly items = new Map<string, { state: string; input: Value | undefined }>();
  /** Open forms of people, by run and step. */
  readonly assignments = new Set<string>();
  readonly checkpoints = new Map<string, Uint8Array>();
  readonly #keys = new Map<string, { runId: string; requestHash: Uint8Array }>();
  #batchWrites = 0;
  readonly #world: World;
  readonly #ledger: Ledger;
  readonly #planOf: (method: string) => ChainPlan;

  constructor(world: World, ledger: Ledger, planOf: (method: string) => ChainPlan) {
    this.#world = world;
    this.#ledger = ledger;
    this.#planOf = planOf;
  }

  /** What every coordinator reaches; the statements' free slots are the workers' business. */
  doors(freeSlots: () => Map<number, number>): Doors {
    return {
      commitBatch: (commit) => this.commit(commit),
      loadRuns: (ids) => new Map(ids.flatMap((id) => (this.runs.has(id) ? [[id, this.load(id)!] as const] : []))),
      storedStates: (ids) => new Map(ids.flatMap((id) => this.#storedState(id))),
      findByKey: (namespaceId, key) => this.#keys.get(`${namespaceId}/${key}`),
      // No simulated start has an id of its caller's choice.
      findCustomId: () => undefined,
      claimDue: (limit, holdMs) => this.#claimDue(limit, holdMs),
      liveRunIds: (afterId, limit) =>
        [...this.runs.values()]
          .filter((row) => row.ended === null && row.id > afterId)
          .map((row) => row.id)
          .sort()
          .slice(0, limit),
      effectBatchesOf: (id) =>
        [...(this.effectBatches.get(id) ?? [])].map(([no, { runIds, version }]) => ({
          no,
          version,
          runIds: [...runIds],
        })),
      deleteEffectBatch: (id, { no, version }) => {
        const batches = this.effectBatches.get(id);
        if (batches?.get(no)?.version === version) batches.delete(no);
      },
      waitingQueues: () => this.#waitingQueues(),
      claimReady: (queue) => this.#claimReady(queue),
      freeSlotsByLane: freeSlots,
      getPayload: (_namespaceId, reference) => this.payloads.get(reference),
      putPayload: (_namespaceId, bytes) => this.putPayload(bytes),
      readItemOutputs: (runId, step) => this.#itemOutputs(runId, step).sort((a, b) => a.item - b.item),
      readDoneItems: ({ runId, step, from, limit }) =>
        this.#itemOutputs(runId, step)
          .reverse()
          .slice(from, from + limit),
      writeReports: (rows) => {
        for (const row of rows) {
          const key = `${row.runId}/${row.stepId}/${row.item}`;
          if (row.checkpoint) this.checkpoints.set(key, row.checkpoint);
        }
      },
      readCheckpoint: (runId, stepId, item) => this.checkpoints.get(`${runId}/${stepId}/${item}`),
      runExists: (runId) => this.runs.has(runId),
      readResult: (runId) =>
        this.history.get(runId)?.find(({ kind }) => kind === EventKind.EVENT_KIND_RUN_ENDED)?.payload,
      readChildren: (page) => this.#readChildren(page),
      readLeftChildren: (page) => this.#leftChildren(page),
    };
  }

  /** A run as the database has it, decoded afresh. */
  load(id: string): StoredRun | undefined {
    const row = this.runs.get(id);
    if (!row) return undefined;
    const stored = toStoredRun({ ...row, items: this.#openItems(id) });
    for (const { seq, kind, step, payload } of this.history.get(id)!) {
      if (payload && !notOutputs.includes(kind))
        placeValue(stored, { seq, kind, step: step < 0 ? null : step }, { ...payload });
    }
    return stored;
  }

  #openItems(runId: string): string | null {
    const rows = [...this.items].flatMap(([key, { state, input }]) => {
      const [id, step, item] = key.split("/");
      if (id !== runId) return [];
      const bytes = input && Buffer.from(Payload.encode(toPayload(input)!).finish()).toString("base64");
      return [[Number(step), Number(item), state, bytes ?? null] as const];
    });
    rows.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    return rows.length === 0 ? null : JSON.stringify(rows);
  }

  /** In the order in which they came. */
  #itemOutputs(runId: string, step: number): ItemOutput[] {
    const all = (this.history.get(runId) ?? []).filter((row) => row.step === step);
    const since = all.findLastIndex(({ kind }) => kind === EventKind.EVENT_KIND_STEP_RETRIED);
    const rows = all.slice(since + 1).filter(({ kind }) => kind === EventKind.EVENT_KIND_ITEM_SUCCEEDED);
    return rows.map(({ item, note, payload }) => ({ item, key: note, value: payload! }));
  }

  putPayload(bytes: Uint8Array): string {
    const reference = `payload-${this.payloads.size + 1}`;
    this.payloads.set(reference, bytes);
    return reference;
  }

  commit(commit: Commit): CommitResult {
    for (const { records } of commit.writes) {
      const refused = records.some(({ payload }) => payload?.bytes && Buffer.from(payload.bytes).includes(poison));
      if (refused) throw Object.assign(new Error("the value is refused"), { code: "22021" });
    }
    for (const { run, expectedVersion } of commit.writes)
      if (expectedVersion === 0 && this.runs.has(run.id))
        throw Object.assign(new Error("the run exists"), { code: "23505" });
    const written = new Set<string>();
    for (const write of commit.writes) {
      const alone = write.after === undefined || written.has(write.after);
      if (alone && this.#write(write)) written.add(write.run.id);
    }
    const batches = this.effectBatches.get(commit.coordinatorId) ?? new Map<number, BatchRow>();
    this.effectBatches.set(commit.coordinatorId, batches);
    if (commit.pending.length > 0) {
      this.#batchWrites += 1;
      batches.set(commit.batchNo, { runIds: [...commit.pending], version: `${this.#batchWrites}` });
    }
    for (const no of commit.confirmed) batches.delete(no);
    return { written, nowMs: this.#world.nowMs };
  }

  #write(write: RunWrite): boolean {
    const { run, expectedVersion, idempotency } = write;
    const row = this.runs.get(run.id);
    if ((row?.version ?? 0) !== expectedVersion) return false;
    if (expectedVersion === 0 && run.parent && !this.#isWanted(run.parent.runId, run.id)) return false;
    if (idempotency) {
      const key = `${run.namespaceId}/${idempotency.key}`;
      if (this.#keys.has(key)) return false;
      this.#keys.set(key, { runId: run.id, requestHash: idempotency.requestHash });
    }
    const history = this.history.get(run.id) ?? [];
    this.#ledger.committed(
      this.#planOf(write.method),
      this.load(run.id)?.run,
      write,
      history.map(({ kind }) => kind),
    );
    // Written once: what moves it later is in the state.
    this.runs.set(run.id, { ...toRow(write), ...(row ? { deadline: row.deadline } : {}) });
    for (const { seq, kind, step, item = 0, note = "", payload } of write.records)
      history.push({ seq, kind, step, item, note, payload: payload && { ...payload } });
    for (const { step, item } of write.items?.values() ?? []) {
      const key = `${run.id}/${step}/${item}`;
      const state = run.items?.get(step)?.get(item);
      const { input } = state ?? this.items.get(key) ?? {};
      if (state) this.items.set(key, { state: encodeItem(state, run.acceptedAtMs), input });
      else this.items.delete(key);
    }
    this.history.set(run.id, history);
    for (const effect of write.effects) this.#applyEffect(run, effect);
    return true;
  }

  /** Effects that write a row in the same commit; all others are none of the database's business. */
  #applyEffect(run: RunState, effect: Effect): void {
    switch (effect.kind) {
      case "enqueue": {
        const { index, taskQueue, method, contract } = effect.step;
        const about = { namespaceId: run.namespaceId, taskQueue, callee: `${method}@${contract}` };
        const place = { priority: effect.priority, readyAtMs: effect.atMs, claimedUntilMs: 0 };
        const { item = 0 } = effect;
        this.ready.set(`${run.id}/${index}/${item}`, { runId: run.id, step: index, item, ...about, ...place });
        return;
      }
      case "dequeue":
        this.ready.delete(`${run.id}/${effect.step.index}/${effect.item ?? 0}`);
        return;
      case "bind": {
        const { step, item = 0, attempt, lease, session } = effect;
        const about = { runId: run.id, stepId: step.id, step: step.index, item, attempt, lease, session };
        this.bindings.set(`${run.id}/${step.index}/${item}`, { ...about, boundAtMs: this.#world.nowMs });
        return;
      }
      case "assign":
        this.assignments.add(`${run.id}/${effect.step.index}`);
        return;
      case "unassign":
        this.assignments.delete(`${run.id}/${effect.step.index}`);
        return;
      case "unbind":
        this.bindings.delete(`${run.id}/${effect.step.index}/${effect.item ?? 0}`);
    }
  }

  #storedState(id: string): [string, { version: number; state: string }][] {
    const row = this.runs.get(id);
    return row ? [[id, { version: row.version, state: Buffer.from(row.state).toString("utf8") }]] : [];
  }

  #claimDue(limit: number, holdMs: number): string[] {
    const { nowMs } = this.#world;
    const due = [...this.runs.values()].filter(({ wakeup }) => wakeup !== null && wakeup <= nowMs);
    due.sort((a, b) => a.wakeup! - b.wakeup!);
    for (const row of due.slice(0, limit)) this.runs.set(row.id, { ...row, wakeup: nowMs + holdMs });
    return due.slice(0, limit).map(({ id }) => id);
  }

  #isWanted(parentId: string, childId: string): boolean {
    return [...this.bindings.values()].some(({ runId, lease }) => runId === parentId && lease === childId);
  }

  #readChildren({ oldMs, afterChildId, limit }: Parameters<RunStore["readChildren"]>[0]): ChildRow[] {
    const before = this.#world.nowMs - oldMs;
    const rows = [...this.bindings.values()].filter(
      ({ session, lease, boundAtMs }) => session === childSession && lease > afterChildId && boundAtMs < before,
    );
    rows.sort((a, b) => (a.lease < b.lease ? -1 : 1));
    return rows.slice(0, limit).map(({ runId, stepId, item, attempt, lease }) => {
      const child = this.runs.get(lease);
      const states = { started: child !== undefined, ended: child !== undefined && child.ended !== null };
      return { runId, stepId, item, attempt, childId: lease, ...states };
    });
  }

  #leftChildren({ runId, step, afterChildId, limit }: Parameters<RunStore["readLeftChildren"]>[0]): string[] {
    const begun = (this.history.get(runId) ?? []).filter(
      (row) => row.step === step && row.kind === EventKind.EVENT_KIND_CHILD_STARTED,
    );
    const isLeft = (id: string): boolean => this.runs.get(id)?.ended === null && !this.#isWanted(runId, id);
    return begun
      .map(({ note }) => note)
      .filter((id) => id > afterChildId && isLeft(id))
      .sort()
      .slice(0, limit);
  }

  #waitingQueues(): { namespaceId: number; taskQueue: string }[] {
    const queues = new Map<string, { namespaceId: number; taskQueue: string }>();
    for (const { namespaceId, taskQueue } of this.ready.values())
      queues.set(`${namespaceId}/${taskQueue}`, { namespaceId, taskQueue });
    return [...queues.values()];
  }

  #claimReady(queue: Parameters<RunStore["claimReady"]>[0]): ReadyStep[] {
    const { nowMs } = this.#world;
    const free = [...this.ready.values()].filter(
      (row) =>
        row.namespaceId === queue.namespaceId &&
        row.taskQueue === queue.taskQueue &&
        queue.callees.includes(row.callee) &&
        row.claimedUntilMs <= nowMs,
    );
    free.sort((a, b) => b.priority - a.priority || a.readyAtMs - b.readyAtMs);
    const best = free.slice(0, queue.limit);
    for (const row of best) row.claimedUntilMs = nowMs + queue.holdMs;
    return best.map(({ runId, step, item }) => ({ runId, step, item }));
  }
}

/** RunStore without its promises: a statement's effect, at the instant at which it happens. */
export type Doors = {
  [Name in keyof RunStore]: (...args: Parameters<RunStore[Name]>) => Awaited<ReturnType<RunStore[Name]>>;
};

function toRow(write: RunWrite): RunRow {
  const { run } = write;
  return {
    id: run.id,
    namespace_id: run.namespaceId,
    namespace: run.namespace,
    method: write.method,
    chain_version: write.chainVersion,
    contract: write.contract,
    status: run.status,
    version: write.expectedVersion + 1,
    last_seq: run.lastSeq,
    priority: run.priority,
    labels: run.labels,
    accepted: run.acceptedAtMs,
    deadline: run.deadlineAtMs,
    ended: run.endedAtMs || null,
    wakeup: run.wakeupAtMs || null,
    state: Buffer.from(encodeRunState(run)),
    items: null,
  };
}
