/** Reads of runs: what the pipeline needs to go on with them, and what people ask for. */
import { EventKind, Payload, type RunStatus } from "@taskmesh/proto";
import { ItemMap } from "../engine/item-map.js";
import { itemsValue } from "../engine/items.js";
import type { Value } from "../engine/plan.js";
import { decodeItem, decodeRunState, unread } from "../engine/run-codec.js";
import { type RunState, type StepState, StepStatus } from "../engine/run-state.js";
import { deadlineOf } from "../engine/run-time.js";
import { arrayOf, type Db } from "./db.js";

/** A run as stored, with what it is pinned to. */
export interface StoredRun {
  run: RunState;
  method: string;
  chainVersion: number;
  contract: string;
}

/** A row of `runs`, read. */
export interface RunRow {
  id: string;
  namespace_id: number;
  namespace: string;
  method: string;
  chain_version: number;
  contract: string;
  status: RunStatus;
  version: number;
  last_seq: number;
  priority: number;
  labels: Record<string, string> | null;
  accepted: number;
  deadline: number;
  ended: number | null;
  wakeup: number | null;
  state: Uint8Array;
  starter?: string | null;
  /** Open items of fan-outs: a JSON list of [step, item, state, input in base64 or null]; null: there are none. */
  items: string | null;
}

const ms = (column: string): string => `(extract(epoch from ${column}) * 1000)::float8`;

const columns = `r.id::text as id, r.namespace_id, ns.name as namespace, r.method, r.chain_version, r.contract, r.status, r.version,
  r.last_seq, r.priority, r.labels, ${ms("r.accepted_at")} as accepted, ${ms("r.deadline_at")} as deadline,
  ${ms("r.ended_at")} as ended, ${ms("r.wakeup_at")} as wakeup, r.state, r.starter,
  (select jsonb_agg(jsonb_build_array(i.step, i.item, i.state, encode(i.input, 'base64')) order by i.step, i.item)
    from step_items i where i.run_id = r.id)::text as items`;

/** The runs with these ids, inputs and outputs included; ids that don't exist are left out. */
export async function loadRuns(db: Db, ids: readonly string[]): Promise<Map<string, StoredRun>> {
  const found = new Map<string, StoredRun>();
  let open = ids;
  for (let read = 0; open.length > 0; read++) {
    if (read === readsMax) throw new Error(`the history of run ${open[0]} lacks outputs that its state names`);
    for (const [id, stored] of await readRuns(db, open)) found.set(id, stored);
    open = open.filter((id) => isTorn(found.get(id)));
  }
  return found;
}

/** Reads of a run that is being written all the while. */
const readsMax = 10;

/** Whether the history was read before the commit that the state was read after; a missing output would read as that of a skipped step. */
const isTorn = (stored: StoredRun | undefined): boolean =>
  (stored?.run.steps.some((s, i) => s.status === StepStatus.STEP_STATUS_SUCCEEDED && !stored.run.outputs[i]) ||
    stored?.run.messages?.kept.some(({ value }) => value === unread)) ??
  false;

/** Payloads of these are no outputs of steps: a run's result, the output of an item, an input that an operator gave. */
export const notOutputs: readonly EventKind[] = [
  EventKind.EVENT_KIND_RUN_ENDED,
  EventKind.EVENT_KIND_ITEM_SUCCEEDED,
  EventKind.EVENT_KIND_STEP_RETRIED,
];

async function readRuns(db: Db, ids: readonly string[]): Promise<Map<string, StoredRun>> {
  const list = arrayOf(ids);
  const [rows, values] = await Promise.all([
    db.query<RunRow>(
      `select ${columns} from unnest($1::uuid[]) as t(id) join runs r on r.id = t.id join namespaces ns on ns.id = r.namespace_id`,
      [list],
    ),
    db.query<{ run_id: string; seq: number; kind: number; step: number | null; payload: Uint8Array }>(
      `select e.run_id::text as run_id, e.seq, e.kind, e.step, e.payload from unnest($1::uuid[]) as t(id) join events e on e.run_id = t.id
        where e.payload is not null and e.kind not in (${notOutputs.join(", ")})`,
      [list],
    ),
  ]);
  const found = new Map(rows.map((row) => [row.id, toStoredRun(row)]));
  for (const { run_id, seq, kind, step, payload } of values) {
    const stored = found.get(run_id);
    if (stored) placeValue(stored, { seq, kind, step }, toValue(payload));
  }
  return found;
}

/** The states of a run's steps alone; undefined: no such run. */
export async function readSteps(db: Db, id: string): Promise<StepState[] | undefined> {
  const [row] = await db.query<{ state: Uint8Array; accepted: number }>(
    `select state, ${ms("accepted_at")} as accepted from runs where id = $1::uuid`,
    [id],
  );
  return row && decodeRunState(Buffer.from(row.state).toString("utf8"), row.accepted).steps;
}

/** The stored state of a run without its values, and how it stands; undefined: no such run. */
export async function readRunState(
  db: Db,
  id: string,
): Promise<(ReturnType<typeof decodeRunState> & { status: RunStatus }) | undefined> {
  const [row] = await db.query<{ state: Uint8Array; accepted: number; status: RunStatus }>(
    `select state, status, ${ms("accepted_at")} as accepted from runs where id = $1::uuid`,
    [id],
  );
  return row && { ...decodeRunState(Buffer.from(row.state).toString("utf8"), row.accepted), status: row.status };
}

/** Gives the run a value that a history row other than its end holds. */
export function placeValue(
  stored: StoredRun,
  { seq, kind, step }: { seq: number; kind: EventKind; step: number | null },
  value: Value,
): void {
  const run = stored.run as { -readonly [Key in keyof RunState]: RunState[Key] };
  if (kind === EventKind.EVENT_KIND_RUN_ACCEPTED) run.input = value;
  else if (step !== null) run.outputs[step] = value;
  else if (run.messages?.kept.some((message) => message.seq === seq)) {
    // Messages that were taken are outputs of their steps; only those that are still kept have their value here.
    const kept = run.messages.kept.map((one) => (one.seq === seq ? { ...one, value } : one));
    run.messages = { ...run.messages, kept };
  }
}

/** A row as the engine's state; its input and outputs are in history rows (`placeValue`). */
export function toStoredRun(row: RunRow): StoredRun {
  const state = decodeRunState(Buffer.from(row.state).toString("utf8"), row.accepted);
  const run: RunState = {
    id: row.id,
    namespaceId: row.namespace_id,
    namespace: row.namespace,
    acceptedAtMs: row.accepted,
    deadlineAtMs: row.deadline,
    priority: row.priority,
    labels: row.labels ?? {},
    status: row.status,
    version: row.version,
    lastSeq: row.last_seq,
    wakeupAtMs: row.wakeup ?? 0,
    endedAtMs: row.ended ?? 0,
    outputs: state.steps.map(outputOfItems),
    input: { contract: "", sizeBytes: 0, sha256: new Uint8Array(0), bytes: new Uint8Array(0) },
    ...state,
    ...(row.starter ? { starter: row.starter } : {}),
    ...(row.items ? { items: readOpenItems(row.items, row.accepted) } : {}),
  };
  run.deadlineAtMs = deadlineOf(row.deadline, run.timed) + (run.extraMs ?? 0);
  return { run, method: row.method, chainVersion: row.chain_version, contract: row.contract };
}

/** The output of a fan-out is its items' outputs, which stay in the history. */
function outputOfItems({ status, each }: StepState, index: number): Value | undefined {
  return each && status === StepStatus.STEP_STATUS_SUCCEEDED ? itemsValue(index, each) : undefined;
}

function readOpenItems(text: string, acceptedAtMs: number): Map<number, ItemMap> {
  const items = new Map<number, ItemMap>();
  for (const [step, item, state, input] of JSON.parse(text) as [number, number, string, string | null][]) {
    const value = input === null ? undefined : toValue(Buffer.from(input, "base64"));
    const open = items.get(step) ?? ItemMap.none;
    items.set(step, open.with(item, decodeItem(state, acceptedAtMs, value)));
  }
  return items;
}

/** A stored envelope as the engine's value. */
export function toValue(payload: Uint8Array): Value {
  const { contract, sizeBytes, sha256, data } = Payload.decode(payload);
  const value: Value = { contract, sizeBytes: Number(sizeBytes), sha256 };
  if (data?.$case === "reference") value.reference = data.value;
  else value.bytes = data?.value ?? new Uint8Array(0);
  return value;
}

/** The run that an idempotency key belongs to. */
export async function findByKey(
  db: Db,
  namespaceId: number,
  key: string,
): Promise<{ runId: string; requestHash: Uint8Array } | undefined> {
  const [row] = await db.query<{ run_id: string; request_hash: Uint8Array }>(
    "select run_id::text as run_id, request_hash from idempotency_keys where namespace_id = $1::int and key = $2::text",
    [namespaceId, key],
  );
  return row && { runId: row.run_id, requestHash: row.request_hash };
}

/** For runs whose commit has an unknown outcome: the bytes that are stored now. */
export async function storedStates(
  db: Db,
  ids: readonly string[],
): Promise<Map<string, { version: number; state: string }>> {
  const rows = await db.query<{ id: string; version: number; state: Uint8Array }>(
    "select r.id::text as id, r.version, r.state from unnest($1::uuid[]) as t(id) join runs r on r.id = t.id",
    [arrayOf(ids)],
  );
  return new Map(rows.map((row) => [row.id, { version: row.version, state: Buffer.from(row.state).toString("utf8") }]));
}

/** Takes up to `limit` runs that are due, by pushing their wake-up: another sweeper takes others (SKIP LOCKED). */
export async function claimDue(db: Db, limit: number, holdMs: number): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    `update runs set wakeup_at = now() + $2::float8 * interval '1 millisecond' where id in (
      select id from runs where wakeup_at <= now() order by wakeup_at limit $1::int for update skip locked)
    returning id::text as id`,
    [limit, holdMs],
  );
  return rows.map(({ id }) => id);
}

/** A page of the runs that have not ended, by id. */
export async function liveRunIds(db: Db, afterId: string, limit: number): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    `select id::text as id from runs where ended_at is null and id > $1::uuid order by id limit $2::int`,
    [afterId, limit],
  );
  return rows.map(({ id }) => id);
}
