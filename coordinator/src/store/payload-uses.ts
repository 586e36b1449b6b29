/**
 * When large payloads were last used, so that retention can delete what nobody names any more.
 *
 * U1. `used_at` is never more than `slackMs` older than the newest history row that names the payload. It is written before the commit
 *     of such a row: what is never committed is only kept longer.
 * U2. So history rows of a week name only payloads that were used since that week began, less the slack.
 *
 * Values that are not large cost nothing here.
 */
import { EventKind, Payload } from "@taskmesh/proto";
import type { Commit } from "./commit.js";
import { arrayOf, type Db, textArray } from "./db.js";

const hourMs = 3600 * 1000;
/** A use is written once in so long for each payload... */
const writtenEveryMs = 24 * hourMs;
/** ...and a coordinator asks for it once in so long. */
const askedEveryMs = 6 * hourMs;
/** See U1; more than both together. */
export const slackMs = 48 * hourMs;
/** Payloads that a coordinator remembers to have asked for. */
const rememberedMax = 10_000;

/** Records that the references in a commit are used, if it has any that are not known to be: then the commit waits for the answer. */
export function createPayloadUses(db: Db): (commit: Commit) => Promise<void> | undefined {
  const askedAt = new Map<string, number>();
  const remember = (keys: Iterable<string>, nowMs: number): void => {
    for (const key of keys) {
      askedAt.delete(key);
      askedAt.set(key, nowMs);
    }
    for (const key of askedAt.keys()) {
      if (askedAt.size <= rememberedMax) break;
      askedAt.delete(key);
    }
  };
  return (commit) => {
    let news: Map<string, [namespaceId: number, reference: string]> | undefined;
    const nowMs = performance.now();
    for (const { run, records } of commit.writes) {
      for (const { payload } of records) {
        if (payload?.reference === undefined) continue;
        const key = `${run.namespaceId} ${payload.reference}`;
        const asked = askedAt.get(key);
        if (asked !== undefined && nowMs - asked < askedEveryMs) continue;
        news ??= new Map();
        news.set(key, [run.namespaceId, payload.reference]);
      }
    }
    const found = news;
    return found && writeUses(db, [...found.values()]).then(() => remember(found.keys(), nowMs));
  };
}

/** Rows are locked in id order: two coordinators may use the same payloads at once. */
async function writeUses(db: Db, uses: readonly [namespaceId: number, reference: string][]): Promise<void> {
  await db.query(
    `with old as materialized (
       select p.id from unnest($1::int[], $2::text[]) as u (namespace_id, reference)
       join payloads p on p.namespace_id = u.namespace_id and p.reference = u.reference
       where p.used_at < now() - $3::float8 * interval '1 millisecond' order by p.id for update of p)
     update payloads p set used_at = now() from old where p.id = old.id`,
    [arrayOf(uses.map(([id]) => id)), textArray(uses.map(([, reference]) => reference)), writtenEveryMs],
  );
}

/** Rows that are read at once. */
const itemRowsMax = 5_000;

/** The payloads that results of a run's items name count as used now. */
export async function useItemPayloads(db: Db, namespaceId: number, runId: string): Promise<void> {
  for (let after: number | undefined = 0; after !== undefined; ) {
    // An envelope with a reference is short.
    const rows: { seq: number; payload: Uint8Array }[] = await db.query(
      `select seq, payload from events where run_id = $1::uuid and seq > $2::int and kind = ${EventKind.EVENT_KIND_ITEM_SUCCEEDED}
        and octet_length(payload) < 1024 order by seq limit ${itemRowsMax}`,
      [runId, after],
    );
    const references = rows.flatMap(({ payload }) => {
      const { data } = Payload.decode(payload);
      return data?.$case === "reference" ? [data.value] : [];
    });
    if (references.length > 0)
      await writeUses(
        db,
        references.map((reference) => [namespaceId, reference] as const),
      );
    after = rows.length === itemRowsMax ? rows.at(-1)?.seq : undefined;
  }
}

/** Whether a complete payload is there; if so it is kept as one that is used now. */
export async function usePayload(db: Db, namespaceId: number, reference: string): Promise<boolean> {
  const [row] = await db.query<{ old: boolean }>(
    `select used_at < now() - $3::float8 * interval '1 millisecond' as old from payloads
      where namespace_id = $1::int and reference = $2::text`,
    [namespaceId, reference, writtenEveryMs],
  );
  if (!row?.old) return row !== undefined;
  // Retention may be deleting it: then it is not there, and this statement finds out.
  const used = await db.query(
    "update payloads set used_at = now() where namespace_id = $1::int and reference = $2::text returning 1 as one",
    [namespaceId, reference],
  );
  return used.length > 0;
}
