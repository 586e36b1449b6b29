/** From a Register message to a session in the database and the answer to it. */
import { type Register, type Registered, TransportKind } from "@taskmesh/proto";
import { type Carrier, laneConsumer, laneSubject, packMaxFor, randomToken, statusError } from "@taskmesh/runtime";
import type { Db } from "../store/db.js";
import { openSessions, type SessionOpening, sessionsExist } from "../store/sessions.js";
import type { DeclaredUpcasters } from "./declared-upcasters.js";
import type { Gate } from "./gate.js";
import { inTime } from "./in-time.js";
import type { RegistryIntervals } from "./intervals.js";
import type { Namespaces } from "./namespaces.js";
import { createRegistration, type GrantedLane, sessionFacts } from "./registration.js";
import type { OpenedSession } from "./session.js";
import { accessOf } from "./sessions.js";
import { together } from "./together.js";

/** Ids that this registry gives out; anything else can't be resumed. */
const sessionIdForm = /^[A-Za-z0-9_-]{16,64}$/;

export interface OpeningOptions {
  db: Db;
  carrier: Carrier;
  coordinatorId: string;
  namespaces: Namespaces;
  gate: Gate;
  upcasters: DeclaredUpcasters;
  intervals: RegistryIntervals;
}

/** Makes what opens sessions; those that come together share their work in the database. */
export function createOpening(options: OpeningOptions): (message: Register) => Promise<OpenedSession> {
  const { db, carrier, coordinatorId, namespaces, gate, upcasters, intervals } = options;
  const registration = createRegistration(db, gate);
  const exists = together({
    round: (asked: readonly { namespaceId: number; id: string }[]) => sessionsExist(db, asked),
  });
  const store = together({
    async round(openings: readonly SessionOpening[]) {
      const streams = await openSessions(db, coordinatorId, openings);
      return openings.map(({ id }) => streams.get(id) ?? new Error(`session ${id} is another namespace's`));
    },
    key: ({ id }) => id,
  });
  return async (message) => {
    const namespace = await namespaces.resolve(message.namespace);
    const declared = message.upcasters.length > 0 ? await upcasters.check(namespace.id, message) : undefined;
    const { lanes, warnings } = await registration.register(namespace.id, message);
    if (declared) warnings.push(...(await declared()));
    await inTime(Promise.all(lanes.map(({ lane }) => carrier.ensureLane(lane))), intervals.patienceMs);
    const wanted = sessionIdForm.test(message.sessionId) ? message.sessionId : undefined;
    const resumed = wanted !== undefined && (await exists({ namespaceId: namespace.id, id: wanted }));
    const id = resumed ? wanted : randomToken();
    const session = { id, namespaceId: namespace.id, lanes };
    const reachable = carrier.kind === "jetstream" && offers(message, TransportKind.TRANSPORT_KIND_JETSTREAM);
    const jetstream = reachable ? await inTime(accessOf(carrier, session), intervals.patienceMs) : undefined;
    const transport = chooseTransport(message, carrier.kind, jetstream !== undefined);
    const stream = await store({
      id,
      namespaceId: namespace.id,
      facts: sessionFacts(message, transport),
      lanes: lanes.map(({ lane, slots }) => ({ ...lane, slots })),
    }).catch((error: unknown) => {
      registration.forget();
      throw error;
    });
    const registered: Registered = {
      sessionId: id,
      beatInterval: duration(intervals.beatMs),
      sessionTimeout: duration(intervals.sessionTimeoutMs),
      transport,
      jetstream: transport === TransportKind.TRANSPORT_KIND_JETSTREAM ? jetstream : undefined,
      lanes: lanes.map((granted) => laneGrant(granted, transport)),
      namespaceId: namespace.id,
      warnings,
      coordinatorId,
    };
    return { ...session, stream, resumed, registered };
  };
}

const laneGrant = ({ taskQueue, lane, slots }: GrantedLane, transport: TransportKind): Registered["lanes"][number] => ({
  taskQueue,
  subject: laneSubject(lane),
  consumer: laneConsumer(lane),
  slots,
  packMax: transport === TransportKind.TRANSPORT_KIND_JETSTREAM ? packMaxFor(slots) : 1,
});

const offers = (message: Register, kind: TransportKind): boolean => message.transports.includes(kind);

/** The worker's favourite among those that lead to this carrier. A worker that names none speaks relay: every stub does. */
function chooseTransport(message: Register, carrier: Carrier["kind"], dialable: boolean): TransportKind {
  const possible = new Set([TransportKind.TRANSPORT_KIND_RELAY]);
  if (carrier === "memory") possible.add(TransportKind.TRANSPORT_KIND_MEMORY);
  if (dialable) possible.add(TransportKind.TRANSPORT_KIND_JETSTREAM);
  const wanted = message.transports.length > 0 ? message.transports : [TransportKind.TRANSPORT_KIND_RELAY];
  const chosen = wanted.find((kind) => possible.has(kind));
  if (chosen !== undefined) return chosen;
  const description = "none of them can be used here; offer relay, which always can";
  throw statusError({
    reason: "ARGUMENT_INVALID",
    message: `transports: ${description}`,
    fieldViolations: [{ field: "transports", description }],
  });
}

const duration = (ms: number): { seconds: bigint; nanos: number } => ({
  seconds: BigInt(Math.floor(ms / 1000)),
  nanos: Math.round((ms % 1000) * 1e6),
});
