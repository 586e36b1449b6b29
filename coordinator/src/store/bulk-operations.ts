/** Rows of bulk operations, and the runs that they are for. */
import type { RunFilter } from "@taskmesh/proto";
import { arrayOf, type Db } from "./db.js";

/** An operation as it is stored. */
export interface BulkRow {
  id: string;
  namespaceId: number;
  request: Uint8Array;
  cursor: string | null;
  lastId: string;
  changed: number;
  unchanged: number;
  failed: number;
  lastFailure: string;
  createdAtMs: number;
  endedAtMs: number;
}

const columns = `id::text as id, namespace_id as "namespaceId", request, cursor::text as cursor, last_id::text as "lastId", changed, unchanged, failed,
  last_failure as "lastFailure", (extract(epoch from created_at) * 1000)::float8 as "createdAtMs",
  coalesce(extract(epoch from ended_at) * 1000, 0)::float8 as "endedAtMs"`;

/** Stores a new operation, unless its id is taken. */
export async function insertBulk(
  db: Db,
  row: Pick<BulkRow, "id" | "namespaceId" | "request" | "lastId">,
): Promise<void> {
  await db.query(
    `insert into bulk_operations (id, namespace_id, request, last_id) values ($1::uuid, $2::int, decode($3::text, 'base64'), $4::uuid)
      on conflict (id) do nothing`,
    [row.id, row.namespaceId, Buffer.from(row.request).toString("base64"), row.lastId],
  );
}

export async function readBulk(db: Db, namespaceId: number, id: string): Promise<BulkRow | undefined> {
  const [row] = await db.query<BulkRow>(
    `select ${columns} from bulk_operations where id = $1::uuid and namespace_id = $2::int`,
    [id, namespaceId],
  );
  return row;
}

/** Takes the oldest operation that nobody works on, for so long. */
export async function claimBulk(db: Db, claim: string, holdMs: number): Promise<BulkRow | undefined> {
  const [row] = await db.query<BulkRow>(
    `update bulk_operations set claim = $1::uuid, claimed_until = now() + make_interval(secs => $2::float8 / 1000)
      where id = (select id from bulk_operations where ended_at is null and (claimed_until is null or claimed_until < now())
        order by created_at limit 1 for update skip locked)
      returning ${columns}`,
    [claim, holdMs],
  );
  return row;
}

/** What was done to a page of runs. */
export interface BulkPage {
  cursor: string;
  changed: number;
  unchanged: number;
  failed: number;
  lastFailure: string;
}

/** Adds a page, and holds the operation for longer; false: another one has it. */
export async function advanceBulk(
  db: Db,
  at: { id: string; claim: string; holdMs: number },
  page: BulkPage,
): Promise<boolean> {
  const rows = await db.query(
    `update bulk_operations set cursor = $3::uuid, changed = changed + $4::int, unchanged = unchanged + $5::int, failed = failed + $6::int,
        last_failure = case when $7::text = '' then last_failure else $7::text end,
        claimed_until = now() + make_interval(secs => $8::float8 / 1000)
      where id = $1::uuid and claim = $2::uuid returning 1`,
    [at.id, at.claim, page.cursor, page.changed, page.unchanged, page.failed, page.lastFailure, at.holdMs],
  );
  return rows.length > 0;
}

/** No run is left. */
export async function endBulk(db: Db, at: { id: string; claim: string }): Promise<void> {
  await db.query(
    "update bulk_operations set ended_at = now(), claimed_until = null where id = $1::uuid and claim = $2::uuid",
    [at.id, at.claim],
  );
}

/** Lets another one go on at once. */
export async function releaseBulk(db: Db, at: { id: string; claim: string }): Promise<void> {
  await db.query("update bulk_operations set claimed_until = null where id = $1::uuid and claim = $2::uuid", [
    at.id,
    at.claim,
  ]);
}

/** The next runs of the operation, in the order of their ids. Runs that have ended are none, unless they are asked for. */
export async function bulkRuns(
  db: Db,
  operation: Pick<BulkRow, "namespaceId" | "lastId" | "cursor">,
  filter: RunFilter,
  limit: number,
  ended = false,
): Promise<string[]> {
  const where = ["r.namespace_id = $1::int", "r.id <= $2::uuid", ...(ended ? [] : ["r.ended_at is null"])];
  const params: unknown[] = [operation.namespaceId, operation.lastId];
  const add = (condition: (parameter: string) => string, value: unknown): void => {
    params.push(value);
    where.push(condition(`$${params.length}`));
  };
  const instant = (at: RunFilter["acceptedAfter"]): number => Number(at!.seconds) * 1000 + at!.nanos / 1e6;
  if (operation.cursor !== null) add((p) => `r.id > ${p}::uuid`, operation.cursor);
  if (filter.statuses.length > 0) add((p) => `r.status = any(${p}::smallint[])`, arrayOf(filter.statuses));
  if (filter.method !== "") add((p) => `r.method = ${p}::text`, filter.method);
  if (Object.keys(filter.labels).length > 0) add((p) => `r.labels @> ${p}::text::jsonb`, JSON.stringify(filter.labels));
  if (filter.starter !== "") add((p) => `r.starter = ${p}::text`, filter.starter);
  if (filter.acceptedAfter)
    add((p) => `r.accepted_at > to_timestamp(${p}::float8 / 1000)`, instant(filter.acceptedAfter));
  if (filter.acceptedBefore)
    add((p) => `r.accepted_at < to_timestamp(${p}::float8 / 1000)`, instant(filter.acceptedBefore));
  const broken = filter.brokenReason !== "" || filter.brokenAction !== "";
  if (filter.brokenReason !== "") add((p) => `b.reason = ${p}::text`, filter.brokenReason);
  if (filter.brokenAction !== "") add((p) => `b.action = ${p}::text`, filter.brokenAction);
  const rows = await db.query<{ id: string }>(
    `select r.id::text as id from runs r ${broken ? "join broken_runs b on b.run_id = r.id" : ""}
      where ${where.join(" and ")} order by r.id limit ${limit}`,
    params,
  );
  return rows.map(({ id }) => id);
}

/** Groups at most that are shown. */
const groupsMax = 1_000;

/** A number of BROKEN runs. */
export interface BrokenRuns {
  reason: string;
  action: string;
  method: string;
  /** "": unknown, or not asked for. */
  starter: string;
  count: number;
  oldestMs: number;
}

/** BROKEN runs by what broke them, if asked for also by who started them, the largest groups first. */
export async function groupBroken(db: Db, namespaceId: number, byStarter = false): Promise<BrokenRuns[]> {
  const starter = byStarter ? "coalesce(starter, '')" : "''";
  return db.query(
    `select reason, action, method, ${starter} as starter, count(*)::float8 as count,
        (extract(epoch from min(broken_at)) * 1000)::float8 as "oldestMs"
      from broken_runs where namespace_id = $1::int group by 1, 2, 3, 4 order by 5 desc, 1, 2, 3, 4 limit ${groupsMax}`,
    [namespaceId],
  );
}
