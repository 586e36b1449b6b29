/** Rows of steps and items that a commit writes or deletes: the ready queue, bindings, open items. */
import { encodeItem } from "../engine/run-codec.js";
import type { Effect, ItemChange } from "../engine/run-event.js";
import type { RunState, StepState } from "../engine/run-state.js";
import type { Blob } from "./blob.js";
import type { RunWrite } from "./commit.js";
import { blobPayload, blobText, instant, type Section, slice } from "./commit-parts.js";
import { arrayOf, textArray } from "./db.js";

type EffectOf<K extends Effect["kind"]> = Extract<Effect, { kind: K }>;

/** The opposite of each effect that writes or deletes a row of a step. */
const opposites = {
  ...({ enqueue: "dequeue", dequeue: "enqueue", bind: "unbind", unbind: "bind" } as const),
  ...({ assign: "unassign", unassign: "assign", take: "give-back", "give-back": "take" } as const),
};
type Placed = keyof typeof opposites;

/** Effects of one kind that no later effect of the batch on the same row replaces or undoes: rows of one statement can't see each other. */
export function lastEffects<K extends Placed>(writes: RunWrite[], kind: K): { run: RunState; effect: EffectOf<K> }[] {
  const found: { run: RunState; effect: EffectOf<K> }[] = [];
  const opposite = opposites[kind];
  for (const { run, effects } of writes) {
    const seen = new Set<string>();
    for (let at = effects.length - 1; at >= 0; at--) {
      const effect = effects[at]!;
      if (effect.kind !== kind && effect.kind !== opposite) continue;
      const { step, item = 0 } = effect as EffectOf<Placed> & { item?: number };
      const row = `${step.index}/${item}`;
      if (effect.kind === kind && !seen.has(row)) found.push({ run, effect: effect as EffectOf<K> });
      seen.add(row);
    }
  }
  return found.reverse();
}

/** Steps that come to wait for a lane. */
export function enqueues(writes: RunWrite[]): Section | undefined {
  const rows = lastEffects(writes, "enqueue");
  if (rows.length === 0) return undefined;
  return {
    name: "enqueues",
    params: [
      arrayOf(rows.map(({ run }) => run.id)),
      arrayOf(rows.map(({ effect }) => effect.step.index)),
      arrayOf(rows.map(({ run }) => run.namespaceId)),
      textArray(rows.map(({ effect }) => effect.step.taskQueue)),
      textArray(rows.map(({ effect }) => `${effect.step.method}@${effect.step.contract}`)),
      arrayOf(rows.map(({ effect }) => effect.priority)),
      arrayOf(rows.map(({ effect }) => effect.atMs)),
      arrayOf(rows.map(({ effect }) => effect.item ?? 0)),
    ],
    sql: (n) => `enqueued as (
  insert into ready_steps (run_id, step, item, namespace_id, task_queue, callee, priority, ready_at)
  select r.run_id, r.step, r.item, r.namespace_id, r.task_queue, r.callee, r.priority, ${instant("r.at")}
  from unnest($${n}::uuid[], $${n + 1}::smallint[], $${n + 2}::int[], $${n + 3}::text[], $${n + 4}::text[], $${n + 5}::smallint[],
    $${n + 6}::float8[], $${n + 7}::int[]) as r(run_id, step, namespace_id, task_queue, callee, priority, at, item)
  where r.run_id in (select id from ok)
  on conflict (run_id, step, item) do update set ready_at = excluded.ready_at,
    priority = excluded.priority, claimed_until = null)`,
  };
}

/** Deletes the rows of these steps or items. */
export function removal(
  name: string,
  table: string,
  rows: { run: RunState; effect: { step: { index: number }; item?: number } }[],
): Section | undefined {
  if (rows.length === 0) return undefined;
  return {
    name,
    params: [
      arrayOf(rows.map(({ run }) => run.id)),
      arrayOf(rows.map(({ effect }) => effect.step.index)),
      arrayOf(rows.map(({ effect }) => effect.item ?? 0)),
    ],
    sql: (n) => `${name} as (
  delete from ${table} d using unnest($${n}::uuid[], $${n + 1}::smallint[], $${n + 2}::int[]) as x(run_id, step, item)
  where d.run_id = x.run_id and d.step = x.step and d.item = x.item and x.run_id in (select id from ok))`,
  };
}

export function dequeues(writes: RunWrite[]): Section | undefined {
  const rows = lastEffects(writes, "dequeue");
  return removal("dequeued", "ready_steps", rows);
}

export function unbinds(writes: RunWrite[]): Section | undefined {
  const rows = lastEffects(writes, "unbind");
  return removal("unbound", "bindings", rows);
}

export function binds(writes: RunWrite[]): Section | undefined {
  const rows = lastEffects(writes, "bind");
  if (rows.length === 0) return undefined;
  return {
    name: "binds",
    params: [
      arrayOf(rows.map(({ run }) => run.id)),
      arrayOf(rows.map(({ effect }) => effect.step.index)),
      textArray(rows.map(({ effect }) => effect.step.id)),
      arrayOf(rows.map(({ effect }) => effect.attempt)),
      textArray(rows.map(({ effect }) => effect.lease)),
      textArray(rows.map(({ effect }) => effect.session)),
      arrayOf(rows.map(({ effect }) => effect.startedAtMs)),
      arrayOf(rows.map(({ effect }) => effect.item ?? 0)),
    ],
    sql: (n) => `bound as (
  insert into bindings (run_id, step, item, step_id, attempt, lease, session_id, started_at)
  select b.run_id, b.step, b.item, b.step_id, b.attempt, b.lease, b.session_id, ${instant("b.at")}
  from unnest($${n}::uuid[], $${n + 1}::smallint[], $${n + 2}::text[], $${n + 3}::int[], $${n + 4}::text[], $${n + 5}::text[],
    $${n + 6}::float8[], $${n + 7}::int[]) as b(run_id, step, step_id, attempt, lease, session_id, at, item)
  where b.run_id in (select id from ok)
  on conflict (run_id, step, item) do update set attempt = excluded.attempt, lease = excluded.lease,
    session_id = excluded.session_id, started_at = excluded.started_at)`,
  };
}

interface ItemRow {
  run: RunState;
  change: ItemChange;
  state: StepState | undefined;
}

/** Items as the batch leaves them: those that are over go, all others are written. */
export function itemSections(writes: RunWrite[], blob: Blob): (Section | undefined)[] {
  const rows: ItemRow[] = [];
  for (const { run, items } of writes) {
    for (const change of items?.values() ?? []) {
      const state = run.items?.get(change.step)?.get(change.item);
      // One that was opened and ended in the same batch never had a row.
      if (state || !change.opened) rows.push({ run, change, state });
    }
  }
  if (rows.length === 0) return [];
  const gone = rows.filter(({ state }) => !state);
  const effects = gone.map(({ run, change }) => ({ run, effect: { step: { index: change.step }, item: change.item } }));
  const live = rows.flatMap((row) => (row.state ? [{ ...row, state: row.state }] : []));
  return [writeItems(live, blob), removal("ended_items", "step_items", effects)];
}

function writeItems(rows: (ItemRow & { state: StepState })[], blob: Blob): Section | undefined {
  if (rows.length === 0) return undefined;
  const states = rows.map(({ run, state }) => blobText(blob, encodeItem(state, run.acceptedAtMs)));
  const inputs = rows.map(({ change, state }) => blobPayload(blob, change.opened ? state.input : undefined));
  return {
    name: "items",
    params: [
      arrayOf(rows.map(({ run }) => run.id)),
      arrayOf(rows.map(({ change }) => change.step)),
      arrayOf(rows.map(({ change }) => change.item)),
      arrayOf(states.map((b) => b.offset)),
      arrayOf(states.map((b) => b.length)),
      arrayOf(inputs.map((b) => b.offset)),
      arrayOf(inputs.map((b) => b.length)),
    ],
    sql: (n) => `items as (
  insert into step_items as s (run_id, step, item, state, input)
  select i.run_id, i.step, i.item, convert_from(${slice("i.soff", "i.slen")}, 'UTF8'),
    case when i.ilen > 0 then ${slice("i.ioff", "i.ilen")} end
  from unnest($${n}::uuid[], $${n + 1}::smallint[], $${n + 2}::int[], $${n + 3}::int[], $${n + 4}::int[], $${n + 5}::int[], $${n + 6}::int[])
    as i(run_id, step, item, soff, slen, ioff, ilen)
  where i.run_id in (select id from ok)
  on conflict (run_id, step, item) do update set state = excluded.state)`,
  };
}
