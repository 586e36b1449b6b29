/** SQL of the settings of namespaces. */
import type { Db } from "./db.js";

/** A namespace with its settings. */
export interface NamespaceRow {
  name: string;
  retentionDays: number;
  createdAtMs: number;
}

/** Longest retention in days: a hundred years, which is to say for ever. */
export const retentionDaysMax = 36_500;

const columns =
  'name, retention_days as "retentionDays", (extract(epoch from created_at) * 1000)::float8 as "createdAtMs"';

/** A namespace that exists. */
export async function readNamespace(db: Db, id: number): Promise<NamespaceRow> {
  const [row] = await db.query<NamespaceRow>(`select ${columns} from namespaces where id = $1::int`, [id]);
  if (!row) throw new Error(`namespace ${id} vanished`);
  return row;
}

/** Sets how long runs are kept after their end, 1 to `retentionDaysMax` days. */
export async function setRetention(db: Db, id: number, days: number): Promise<void> {
  await db.query("update namespaces set retention_days = $2::int where id = $1::int", [id, days]);
}
