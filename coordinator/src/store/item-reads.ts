/** Reads of fan-out items: outputs for expressions, pages for people. */
import { EventKind } from "@taskmesh/proto";
import type { Value } from "../engine/plan.js";
import { arrayOf, type Db } from "./db.js";
import { decodeEventBody, type EventBody } from "./event-body.js";
import { toValue } from "./runs.js";

/** What one item put out. */
export interface ItemOutput {
  item: number;
  /** Of a fan-out over a map. */
  key: string;
  value: Value;
}

/** The outputs of a fan-out step's items, in their order. What came before an operator had it begin again does not count. */
export async function readItemOutputs(db: Db, runId: string, step: number): Promise<ItemOutput[]> {
  const rows = await db.query<{ item: number; body: Uint8Array | null; payload: Uint8Array }>(
    `select item, body, payload from events
      where run_id = $1::uuid and step = $2::smallint and kind = ${EventKind.EVENT_KIND_ITEM_SUCCEEDED}
        and seq > coalesce((select max(seq) from events where run_id = $1::uuid and step = $2::smallint
          and kind = ${EventKind.EVENT_KIND_STEP_RETRIED}), 0)
      order by item`,
    [runId, step],
  );
  return rows.map(({ item, body, payload }) => ({ item, key: decodeEventBody(body).note, value: toValue(payload) }));
}

/** A page of a fan-out step's outputs, what came last first. */
export async function readDoneItems(
  db: Db,
  page: { runId: string; step: number; from: number; limit: number },
): Promise<ItemOutput[]> {
  const rows = await db.query<{ item: number; body: Uint8Array | null; payload: Uint8Array }>(
    `select item, body, payload from events
      where run_id = $1::uuid and step = $2::smallint and kind = ${EventKind.EVENT_KIND_ITEM_SUCCEEDED}
        and seq > coalesce((select max(seq) from events where run_id = $1::uuid and step = $2::smallint
          and kind = ${EventKind.EVENT_KIND_STEP_RETRIED}), 0)
      order by seq desc offset $3::int limit $4::int`,
    [page.runId, page.step, page.from, page.limit],
  );
  return rows.map(({ item, body, payload }) => ({ item, key: decodeEventBody(body).note, value: toValue(payload) }));
}

/** A history row about one item. */
export interface ItemEvent {
  item: number;
  kind: EventKind;
  atMs: number;
  attempt: number;
  body: EventBody;
  payload?: Value;
}

/** What was recorded of the items `from` up to and without `to`, in the order in which it happened. */
export async function readItemEvents(
  db: Db,
  query: { runId: string; step: number; from: number; to: number; payloads: boolean },
): Promise<ItemEvent[]> {
  const kinds = [
    EventKind.EVENT_KIND_ITEM_SUCCEEDED,
    EventKind.EVENT_KIND_ITEM_FAILED,
    EventKind.EVENT_KIND_ATTEMPT_FAILED,
    EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT,
    EventKind.EVENT_KIND_ATTEMPT_LOST,
    EventKind.EVENT_KIND_CHILD_STARTED,
  ];
  const payload = query.payloads ? "payload" : "null::bytea as payload";
  const rows = await db.query<
    Omit<ItemEvent, "body" | "payload"> & { body: Uint8Array | null; payload: Uint8Array | null }
  >(
    `select item, kind, (extract(epoch from at) * 1000)::float8 as "atMs", attempt, body, ${payload} from events
      where run_id = $1::uuid and step = $2::smallint and item >= $3::int and item < $4::int and kind = any($5::smallint[])
      order by seq`,
    [query.runId, query.step, query.from, query.to, arrayOf(kinds)],
  );
  return rows.map(({ body, payload: bytes, ...row }) => ({
    ...row,
    body: decodeEventBody(body),
    ...(bytes ? { payload: toValue(bytes) } : {}),
  }));
}
