/** Sections of a commit of one run (see commit.ts): what a run that is alone waits for, so with scalars in place of arrays. */
import type { RunRecord } from "../engine/run-event.js";
import type { RunState } from "../engine/run-state.js";
import type { RunWrite } from "./commit.js";
import { instant, type Part, type Section, slice } from "./commit-parts.js";

/** The header. One row can't be locked out of order. */
export function loneUpdate({ run, expectedVersion }: RunWrite, state: Part): Section {
  return {
    name: "update",
    params: [
      run.id,
      expectedVersion,
      run.status,
      run.lastSeq,
      run.wakeupAtMs || null,
      run.endedAtMs || null,
      state.offset,
      state.length,
    ],
    sql: (n) => `updated as (
  update {runs} r set version = $${n + 1}::int + 1, status = $${n + 2}::smallint, last_seq = $${n + 3}::int,
    wakeup_at = ${instant(`$${n + 4}::float8`)}, ended_at = ${instant(`$${n + 5}::float8`)},
    state = ${slice(`$${n + 6}::int`, `$${n + 7}::int`)}
  where r.id = $${n}::uuid and r.version = $${n + 1}::int returning r.id)`,
  };
}

/** More events than this go in arrays: each number of them has a statement of its own. */
export const loneEventsMax = 3;

/** Events of one run, as rows of scalars. */
export function loneEvents(rows: { run: RunState; record: RunRecord }[], bodies: Part[], payloads: Part[]): Section {
  const params = rows.flatMap(({ run, record }, i) => [
    record.seq,
    run.nowMs,
    record.kind,
    record.step < 0 ? null : record.step,
    record.item ?? 0,
    record.attempt,
    bodies[i]!.offset,
    bodies[i]!.length,
    payloads[i]!.offset,
    payloads[i]!.length,
  ]);
  const types = "int,float8,smallint,smallint,int,int,int,int,int,int".split(",");
  return {
    name: `${rows.length} events of one`,
    params,
    sql: (n) => `recorded as (
  insert into {events} (run_id, seq, at, kind, step, item, attempt, body, payload)
  select ok.id, e.seq, ${instant("e.at")}, e.kind, e.step, e.item, e.attempt,
    case when e.blen > 0 then ${slice("e.boff", "e.blen")} end, case when e.plen > 0 then ${slice("e.poff", "e.plen")} end
  from ok, (values ${rows.map((_, row) => `(${types.map((type, at) => `$${n + row * types.length + at}::${type}`).join(", ")})`).join(", ")})
    as e(seq, at, kind, step, item, attempt, boff, blen, poff, plen))`,
  };
}
