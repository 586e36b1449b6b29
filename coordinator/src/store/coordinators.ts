/** SQL of the heartbeats of coordinators, and of who finishes what a lapsed one left. Only the database's clock says who lapsed. */
import type { Db } from "./db.js";

/**
 * Writes this coordinator's heartbeat and returns every coordinator that lives, itself included. One that others took for dead
 * is alive again: what they finish for it meanwhile does no harm, since each change is fenced.
 */
export async function beatCoordinator(
  db: Db,
  coordinator: { id: string; address: string },
  timeoutMs: number,
): Promise<{ live: string[]; lapsed: string[] }> {
  await db.query(
    `insert into coordinators (id, address) values ($1::text, $2::text)
     on conflict (id) do update
       set last_beat_at = now(), address = excluded.address, adopted_by = null, adopted_at = null`,
    [coordinator.id, coordinator.address],
  );
  const rows = await db.query<{ id: string; live: boolean }>(
    `select id, last_beat_at >= now() - make_interval(secs => $1::float8) as live from coordinators order by id`,
    [timeoutMs / 1000],
  );
  const ids = (live: boolean): string[] => rows.filter((row) => row.live === live).map((row) => row.id);
  return { live: ids(true), lapsed: ids(false) };
}

/** Every coordinator that is not forgotten: completions may be addressed to any of them. */
export async function readCoordinatorIds(db: Db): Promise<string[]> {
  return (await db.query<{ id: string }>("select id from coordinators")).map((row) => row.id);
}

/** Whether sessions are left that a coordinator held when it lapsed, or any whose workers are back and have not said what they have in hand. */
export async function leftSessions(db: Db, coordinatorId: string): Promise<boolean> {
  const left = "select 1 as one from sessions where coordinator_id = $1::text or not told limit 1";
  return (await db.query(left, [coordinatorId])).length > 0;
}

/** A lapsed coordinator, and when it was first adopted, by the database's clock: what it did is older. */
export interface Adopted {
  id: string;
  atMs: number;
}

/** Claims lapsed coordinators that nobody alive has adopted. Returns all that are this one's now, earlier claims included. */
export async function adoptCoordinators(db: Db, id: string, timeoutMs: number): Promise<Adopted[]> {
  await db.query(
    `update coordinators set adopted_by = $1::text, adopted_at = coalesce(adopted_at, now()) where id in (
       select c.id from coordinators c
       where c.last_beat_at < now() - make_interval(secs => $2::float8) and c.id <> $1::text
         and c.adopted_by is distinct from $1::text
         and not exists (
           select from coordinators a
           where a.id = c.adopted_by and a.last_beat_at >= now() - make_interval(secs => $2::float8))
       order by c.id for update skip locked)`,
    [id, timeoutMs / 1000],
  );
  return db.query<Adopted>(
    `select id, (extract(epoch from adopted_at) * 1000)::float8 as "atMs" from coordinators where adopted_by = $1::text order by id`,
    [id],
  );
}

/**
 * Which of the adopted coordinators nobody can report to any more: they were adopted `keptMs` ago, and no worker is left that
 * registered before that time was over. (Starts that they published wait no longer than that for a first delivery.)
 */
export async function settledCoordinators(db: Db, id: string, keptMs: number): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    `select c.id from coordinators c
     where c.adopted_by = $1::text and c.adopted_at < now() - make_interval(secs => $2::float8)
       and not exists (
         select from sessions s where s.registered_at < c.adopted_at + make_interval(secs => $2::float8))
     order by c.id`,
    [id, keptMs / 1000],
  );
  return rows.map((row) => row.id);
}

/** Forgets a lapsed coordinator whose work is finished; false if it came back or another adopted it. */
export async function forgetCoordinator(db: Db, lapsed: string, adoptedBy: string): Promise<boolean> {
  const rows = await db.query(
    "delete from coordinators where id = $1::text and adopted_by = $2::text returning 1 as one",
    [lapsed, adoptedBy],
  );
  return rows.length > 0;
}

/** Marks coordinators as lapsed now: this one when it stops, or all others when this process has the database for itself. */
export async function retireCoordinators(db: Db, which: { id: string } | { allBut: string }): Promise<void> {
  const [comparison, id] = "id" in which ? ["=", which.id] : ["<>", which.allBut];
  await db.query(`update coordinators set last_beat_at = '-infinity' where id ${comparison} $1::text`, [id]);
}
