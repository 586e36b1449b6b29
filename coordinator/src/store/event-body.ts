/** What a history row says beside its columns, as JSON. Short names: one is written a step. */
import { Failure, type RunStatus, type StepStatus } from "@taskmesh/proto";
import type { Move, RunRecord } from "../engine/run-event.js";

interface Stored {
  /** [step, status, attempt, retryAtMs?] */
  m?: (readonly [number, number, number] | readonly [number, number, number, number])[];
  f?: unknown;
  s?: string;
  x?: number;
  r?: number;
  n?: string;
  b?: string;
  o?: string;
}

/** The row's body, "" if it has nothing to say. */
export function encodeEventBody(record: RunRecord): string {
  const body: Stored = {};
  if (record.moves.length > 0) {
    body.m = record.moves.map(({ step, status, attempt, retryAtMs }) =>
      retryAtMs === undefined ? ([step, status, attempt] as const) : ([step, status, attempt, retryAtMs] as const),
    );
  }
  if (record.failure) body.f = Failure.toJSON(record.failure);
  if (record.session) body.s = record.session;
  if (record.executionMs) body.x = record.executionMs;
  if (record.runStatus) body.r = record.runStatus;
  if (record.note) body.n = record.note;
  if (record.by) body.b = record.by;
  if (record.other) body.o = record.other;
  const text = JSON.stringify(body);
  return text === "{}" ? "" : text;
}

export interface EventBody {
  moves: Move[];
  failure?: Failure;
  session: string;
  executionMs: number;
  runStatus: RunStatus;
  note: string;
  /** Who asked for it. */
  by: string;
  /** Another run that it is about. */
  other: string;
}

export function decodeEventBody(bytes: Uint8Array | null): EventBody {
  const body: Stored = bytes && bytes.length > 0 ? (JSON.parse(Buffer.from(bytes).toString("utf8")) as Stored) : {};
  return {
    moves: (body.m ?? []).map(([step, status, attempt, retryAtMs]) => ({
      step,
      status: status as StepStatus,
      attempt,
      ...(retryAtMs === undefined ? {} : { retryAtMs }),
    })),
    ...(body.f === undefined ? {} : { failure: Failure.fromJSON(body.f) }),
    session: body.s ?? "",
    executionMs: body.x ?? 0,
    runStatus: (body.r ?? 0) as RunStatus,
    note: body.n ?? "",
    by: body.b ?? "",
    other: body.o ?? "",
  };
}
