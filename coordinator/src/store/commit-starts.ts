/** What only some starts have, in a commit (see commit.ts): a batch without any of it has the statement of ordinary starts. */
import { EventKind } from "@taskmesh/proto";
import type { Effect } from "../engine/run-event.js";
import type { Blob } from "./blob.js";
import { wantedChildren } from "./children.js";
import type { RunWrite } from "./commit.js";
import { type Section, slice } from "./commit-parts.js";
import { arrayOf, textArray } from "./db.js";

/** Parts of the statement that inserts runs. */
export interface MoreOfStarts {
  /** Tells one combination from the others. */
  name: string;
  params: string[];
  /** Of the parameters, numbered from `first`. */
  types(first: number): string;
  names: string;
  /** Statements before the one that inserts. */
  before: string;
  columns: string;
  values: string;
  conditions: string;
}

interface Part {
  name: string;
  columns: { name: string; type: string; values: string }[];
  before?: string;
  /** Column of the run's row. */
  stored?: string;
  condition?: string;
}

const ordinary: MoreOfStarts = {
  ...{ name: "inserts", params: [], types: () => "", names: "" },
  ...{ before: "", columns: "", values: "", conditions: "" },
};

/** What these starts have beside what all have. */
export function moreOfStarts(writes: readonly RunWrite[], blob: Blob): MoreOfStarts {
  const all = [children(writes), starters(writes), inPlace(writes), named(writes, blob)];
  const parts = all.filter((part) => part !== undefined);
  if (parts.length === 0) return ordinary;
  const columns = parts.flatMap((part) => part.columns);
  return {
    name: `inserts ${parts.map(({ name }) => name).join(" and ")}`,
    params: columns.map(({ values }) => values),
    types: (first) => columns.map(({ type }, at) => `, $${first + at}::${type}[]`).join(""),
    names: columns.map(({ name }) => `, ${name}`).join(""),
    before: parts.map(({ before = "" }) => before).join(""),
    columns: parts.map(({ stored }) => (stored ? `, ${stored}` : "")).join(""),
    values: parts.map(({ stored }) => (stored ? `, n.${stored}` : "")).join(""),
    conditions: parts.map(({ condition }) => (condition ? `\n    and ${condition}` : "")).join(""),
  };
}

/** A child is stored only if its parent still waits for it. */
function children(writes: readonly RunWrite[]): Part | undefined {
  if (!writes.some(({ run }) => run.parent)) return undefined;
  const parents = arrayOf(writes.map(({ run }) => run.parent?.runId ?? null));
  return {
    name: "of children",
    columns: [{ name: "parent", type: "uuid", values: parents }],
    before: wantedChildren,
    condition: "(n.parent is null or n.id in (select id from wanted))",
  };
}

function starters(writes: readonly RunWrite[]): Part | undefined {
  if (!writes.some(({ run }) => run.starter !== undefined)) return undefined;
  const values = textArray(writes.map(({ run }) => run.starter ?? null));
  return { name: "by starters", columns: [{ name: "starter", type: "text", values }], stored: "starter" };
}

const onlyAfter = "(n.after is null or n.after in (select id from updated))";

/** A run that takes the place of another one is stored only if that is as it was found, and ends with this. */
function inPlace(writes: readonly RunWrite[]): Part | undefined {
  if (!writes.some(({ after }) => after !== undefined)) return undefined;
  return {
    name: "in place",
    columns: [{ name: "after", type: "uuid", values: arrayOf(writes.map(({ after }) => after ?? null)) }],
    condition: onlyAfter,
  };
}

/** A run with a custom id is stored only if nobody has that, or the one that is to lose it. */
function named(writes: readonly RunWrite[], blob: Blob): Part | undefined {
  if (!writes.some(({ customId }) => customId)) return undefined;
  const hashes = writes.map(({ customId }) => (customId?.requestHash ? blob.bytes(customId.requestHash) : -1));
  const names = writes.map(({ customId, run }) => (customId ? (run.customId ?? null) : null));
  const holders = writes.map(({ customId }) => customId?.holder ?? null);
  const gated = writes.some(({ after }) => after !== undefined) ? ` and ${onlyAfter}` : "";
  return {
    name: gated === "" ? "with ids" : "with ids in place",
    columns: [
      { name: "name", type: "text", values: textArray(names) },
      { name: "holder", type: "uuid", values: arrayOf(holders) },
      { name: "request", type: "int", values: arrayOf(hashes) },
    ],
    before: `
named as (
  insert into custom_ids as c (namespace_id, name, run_id, holder, request_hash)
  select n.namespace_id, n.name, n.id, n.holder, case when n.request >= 0 then ${slice("n.request", "32")} end
  from n where n.name is not null${gated} order by n.name
  on conflict (namespace_id, name) do update set run_id = excluded.run_id, holder = excluded.holder, request_hash = excluded.request_hash
    where c.run_id = excluded.holder
  returning run_id),`,
    condition: "(n.name is null or n.id in (select run_id from named))",
  };
}

const madeFromOthers = (writes: readonly RunWrite[]): RunWrite[] =>
  writes.filter(({ run, expectedVersion }) => expectedVersion === 0 && run.origin);

/** Which runs were made from others. */
export function successorRows(writes: readonly RunWrite[]): Section | undefined {
  const rows = madeFromOthers(writes);
  if (rows.length === 0) return undefined;
  return {
    name: "succeeded",
    params: [arrayOf(rows.map(({ run }) => run.origin!.runId)), arrayOf(rows.map(({ run }) => run.id))],
    sql: (n) => `succeeded as (
  insert into run_successors (run_id, successor_id)
  select s.run_id, s.successor_id from unnest($${n}::uuid[], $${n + 1}::uuid[]) as s(run_id, successor_id)
  where s.successor_id in (select id from ok))`,
  };
}

type Copy = Extract<Effect, { kind: "copy-items" }>;

/** Results of items that become those of another run. What came before an operator had the fan-out begin again does not count. */
export function copiedItems(writes: readonly RunWrite[]): Section | undefined {
  const rows = madeFromOthers(writes).flatMap(({ run, effects }) =>
    effects.filter((effect): effect is Copy => effect.kind === "copy-items").map((effect) => ({ id: run.id, effect })),
  );
  if (rows.length === 0) return undefined;
  return {
    name: "copied",
    params: [
      arrayOf(rows.map(({ id }) => id)),
      arrayOf(rows.map(({ effect }) => effect.runId)),
      arrayOf(rows.map(({ effect }) => effect.from)),
      arrayOf(rows.map(({ effect }) => effect.step)),
      arrayOf(rows.map(({ effect }) => effect.afterSeq)),
      arrayOf(rows.map(({ effect }) => effect.items)),
    ],
    sql: (n) => `copied as (
  insert into events (run_id, seq, at, kind, step, item, attempt, body, payload)
  select c.run_id, c.after_seq + e.no, e.at, e.kind, c.step, e.item, e.attempt, e.body, e.payload
  from unnest($${n}::uuid[], $${n + 1}::uuid[], $${n + 2}::smallint[], $${n + 3}::smallint[], $${n + 4}::int[], $${n + 5}::int[])
    as c(run_id, origin, origin_step, step, after_seq, items)
  cross join lateral (
    select x.*, row_number() over (order by x.seq) as no from events x
    where x.run_id = c.origin and x.step = c.origin_step and x.kind in (${itemEnds.join(", ")})
      and x.seq > coalesce((select max(y.seq) from events y where y.run_id = c.origin and y.step = c.origin_step
        and y.kind = ${EventKind.EVENT_KIND_STEP_RETRIED}), 0)) e
  where e.no <= c.items and c.run_id in (select id from ok))`,
  };
}

const itemEnds = [EventKind.EVENT_KIND_ITEM_SUCCEEDED, EventKind.EVENT_KIND_ITEM_FAILED];
