/** RelayService: carries the work of a session over gRPC, for workers that can't reach the message broker. */
import type { LaneGrant, RelayServiceServer } from "@taskmesh/proto";
import {
  type Carrier,
  createLogger,
  laneConsumer,
  laneSubject,
  readRelayOpen,
  serveRelay,
  statusError,
  toServiceError,
} from "@taskmesh/runtime";
import type { Namespaces } from "../registry/namespaces.js";
import type { Db } from "../store/db.js";
import { missingSessions, readSessionLanes } from "../store/sessions.js";
import { toStatus } from "./to-status.js";

const log = createLogger("rpc");

/** Relay streams of one coordinator: each holds a work transport and what its worker may have in flight. */
const relaysMax = 10_000;

export interface RelayServiceOptions {
  db: Db;
  namespaces: Pick<Namespaces, "resolve">;
  carrier: Pick<Carrier, "workTransport">;
  /** Aborts when the coordinator drains: workers dial another one. */
  draining: () => AbortSignal;
}

/** Makes the service. The session may be held by another coordinator: its lanes are in the database. */
export function createRelayService(options: RelayServiceOptions): RelayServiceServer {
  let relays = 0;
  const watch = createSessionWatch(options.db);
  const serve = async (call: Parameters<RelayServiceServer["relay"]>[0]): Promise<void> => {
    const open = await readRelayOpen(call);
    const namespace = await options.namespaces.resolve(open.namespace);
    const lanes = await lanesOf(options.db, namespace.id, open.sessionId);
    if (!lanes) {
      throw statusError({ reason: "SESSION_NOT_FOUND", message: "there is no such session: register again" });
    }
    if (relays >= relaysMax) {
      const message = `this coordinator serves ${relaysMax} relays already`;
      throw statusError({ reason: "OVERLOADED", message, retryAfterMs: 5_000 });
    }
    relays += 1;
    const transport = options.carrier.workTransport({ namespaceId: namespace.id, sessionId: open.sessionId });
    const lapsed = watch.add(open.sessionId);
    const draining = options.draining();
    const stop = (): void => lapsed.abort();
    draining.addEventListener("abort", stop, { once: true });
    if (draining.aborted) stop();
    await serveRelay(call, transport, lanes, lapsed.signal).finally(() => {
      relays -= 1;
      watch.delete(lapsed);
      draining.removeEventListener("abort", stop);
    });
  };
  return {
    relay(call) {
      // Errors of a call that is over must not end the process.
      call.on("error", () => {});
      serve(call).catch((error: unknown) => {
        const status = toStatus(error);
        if (status.reason === "INTERNAL") log.error({ err: error }, "a relay failed");
        if (!call.cancelled) call.emit("error", toServiceError(status));
      });
    },
  };
}

/** How often the sessions of open relays are looked for. */
const watchEveryMs = 2_000;

/**
 * Aborts the relays of sessions that have lapsed. A worker that is paused keeps its stream open: without this the stream would take the very
 * attempts that its session just lost.
 */
function createSessionWatch(db: Db) {
  const open = new Map<AbortController, string>();
  let timer: NodeJS.Timeout | undefined;
  const look = async (): Promise<void> => {
    const missing = await missingSessions(db, [...new Set(open.values())]).catch(() => new Set<string>());
    for (const [relay, sessionId] of open) if (missing.has(sessionId)) relay.abort();
    timer = open.size > 0 ? setTimeout(look, watchEveryMs).unref() : undefined;
  };
  return {
    add(sessionId: string): AbortController {
      const relay = new AbortController();
      open.set(relay, sessionId);
      if (timer === undefined) timer = setTimeout(look, watchEveryMs).unref();
      return relay;
    },
    delete(relay: AbortController): void {
      open.delete(relay);
    },
  };
}

/** Ids that a registry gives out; anything else names no session. */
const sessionIdForm = /^[A-Za-z0-9_-]{16,64}$/;

async function lanesOf(db: Db, namespaceId: number, sessionId: string): Promise<LaneGrant[] | undefined> {
  if (!sessionIdForm.test(sessionId)) return undefined;
  const lanes = await readSessionLanes(db, namespaceId, sessionId);
  return lanes?.map(({ taskQueue, queueId, laneId, slots }) => {
    const lane = { namespaceId, queueId, laneId };
    return { taskQueue, subject: laneSubject(lane), consumer: laneConsumer(lane), slots, packMax: 1 };
  });
}
