/**
 * Tables of the registry: who exists (namespaces, coordinators, sessions), what can be called (contracts, callables, chains),
 * where work waits (task queues, lanes), and the large payloads.
 *
 * Everything but the content-addressed rows refers by id, never by name, so that a name may be of any length and change hands.
 * Contracts, descriptor sets and chain versions are kept for ever: accepted runs are pinned to them.
 */
import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  check,
  customType,
  foreignKey,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  smallint,
  text,
  timestamp,
  unique,
} from "drizzle-orm/pg-core";

const bytea = customType<{ data: Uint8Array; driverData: Uint8Array }>({ dataType: () => "bytea" });
const instant = (name: string) => timestamp(name, { withTimezone: true });
const id = () => integer("id").primaryKey().generatedAlwaysAsIdentity();

/** Tenancy boundaries. */
export const namespaces = pgTable(
  "namespaces",
  {
    // Id 1 belongs to `default` on every installation, so generated ids start after it.
    id: integer("id").primaryKey().generatedByDefaultAsIdentity({ startWith: 2 }),
    name: text("name").notNull(),
    createdAt: instant("created_at").notNull().defaultNow(),
    /** How long a run is kept after its end, in days. */
    retentionDays: integer("retention_days").notNull().default(30),
  },
  (table) => [
    // Every rpc names its namespace; two of one name would split a tenant.
    unique("namespaces_name_key").on(table.name),
    check("namespaces_retention_days_check", sql`${table.retentionDays} between 1 and 36500`),
  ],
);

const namespaceId = () =>
  integer("namespace_id")
    .notNull()
    .references(() => namespaces.id);

/** What groups of workers listen on. */
export const taskQueues = pgTable(
  "task_queues",
  {
    id: id(),
    namespaceId: namespaceId(),
    name: text("name").notNull(),
  },
  (table) => [
    // Registrations that race for a new queue must agree on its id: it is part of the subject.
    unique("task_queues_namespace_id_name_key").on(table.namespaceId, table.name),
  ],
);

/** Parts of queues: all workers of a lane serve exactly the same contract revisions, so any of them can take any start of it. */
export const lanes = pgTable(
  "lanes",
  {
    id: id(),
    queueId: integer("queue_id")
      .notNull()
      .references(() => taskQueues.id),
    /** SHA-256 in hex of the sorted entries of `contracts`. */
    contractsHash: text("contracts_hash").notNull(),
    /** Sorted "method@fingerprint". */
    contracts: text("contracts").array().notNull(),
  },
  (table) => [
    // Equal workers share one lane, whichever of them registers first.
    unique("lanes_queue_id_contracts_hash_key").on(table.queueId, table.contractsHash),
  ],
);

/** Encoded FileDescriptorSets, complete and content-addressed: many contracts share one. */
export const descriptorSets = pgTable(
  "descriptor_sets",
  {
    namespaceId: namespaceId(),
    /** SHA-256 of `bytes` in hex. */
    hash: text("hash").notNull(),
    bytes: bytea("bytes").notNull(),
  },
  (table) => [
    // Addressed within the namespace: no tenant can learn by a hash what another has.
    primaryKey({ name: "descriptor_sets_pkey", columns: [table.namespaceId, table.hash] }),
  ],
);

/** Every revision of every contract. */
export const contracts = pgTable(
  "contracts",
  {
    id: id(),
    namespaceId: namespaceId(),
    /** Full method name. */
    method: text("method").notNull(),
    fingerprint: text("fingerprint").notNull(),
    /** Counted from 1 per method. */
    revision: integer("revision").notNull(),
    kind: text("kind", { enum: ["action", "chain"] }).notNull(),
    descriptorHash: text("descriptor_hash").notNull(),
    inputType: text("input_type").notNull(),
    outputType: text("output_type").notNull(),
    description: text("description").notNull(),
    createdAt: instant("created_at").notNull().defaultNow(),
  },
  (table) => [
    // One revision per fingerprint: registering again adds nothing.
    unique("contracts_namespace_id_method_fingerprint_key").on(table.namespaceId, table.method, table.fingerprint),
    // Revisions that race for a number: one wins, the other is retried with the next.
    unique("contracts_namespace_id_method_revision_key").on(table.namespaceId, table.method, table.revision),
    // Runs and payloads name a contract by its fingerprint alone.
    index("contracts_namespace_id_fingerprint_idx").on(table.namespaceId, table.fingerprint),
    foreignKey({
      name: "contracts_descriptor_sets_fkey",
      columns: [table.namespaceId, table.descriptorHash],
      foreignColumns: [descriptorSets.namespaceId, descriptorSets.hash],
    }),
    check("contracts_kind_check", sql`${table.kind} in ('action', 'chain')`),
    check("contracts_revision_check", sql`${table.revision} >= 1`),
  ],
);

/** The one active implementation of each method. */
export const callables = pgTable(
  "callables",
  {
    namespaceId: namespaceId(),
    method: text("method").notNull(),
    kind: text("kind", { enum: ["action", "chain"] }).notNull(),
  },
  (table) => [
    // A method is an action or a chain, never both: callers can't tell them apart, so nothing else decides.
    primaryKey({ name: "callables_pkey", columns: [table.namespaceId, table.method] }),
    check("callables_kind_check", sql`${table.kind} in ('action', 'chain')`),
  ],
);

/** Processes that carry the mesh, by heartbeat. */
export const coordinators = pgTable("coordinators", {
  id: text("id").primaryKey(),
  address: text("address").notNull(),
  startedAt: instant("started_at").notNull().defaultNow(),
  lastBeatAt: instant("last_beat_at").notNull().defaultNow(),
  /** The survivor that finishes what this one left. If it lapses too, another takes over; the row goes when all is done. */
  adoptedBy: text("adopted_by"),
  /** When it was first adopted: workers that registered well after this can't owe it a completion. */
  adoptedAt: instant("adopted_at"),
});

/**
 * Live registrations. A row goes when its session ends or lapses. `last_beat_at` has no index on purpose: it changes with every beat,
 * an index on it would forbid in-place updates, and a scan over the few live workers is cheap.
 */
export const sessions = pgTable(
  "sessions",
  {
    id: text("id").primaryKey(),
    namespaceId: namespaceId(),
    /** Holder of the session's stream. No foreign key: a lapsed coordinator's sessions outlive it for a while. */
    coordinatorId: text("coordinator_id").notNull(),
    /** Grows with each stream of the session; writes of an older stream are refused by it. */
    stream: integer("stream").notNull(),
    host: text("host").notNull(),
    pid: bigint("pid", { mode: "number" }).notNull(),
    version: text("version").notNull(),
    sdk: text("sdk").notNull(),
    labels: jsonb("labels").$type<Record<string, string>>().notNull(),
    /** A TransportKind. */
    transport: smallint("transport").notNull(),
    draining: boolean("draining").notNull().default(false),
    /** False while nonces don't come back over the work transport: such a worker would let starts wait. */
    assignable: boolean("assignable").notNull().default(true),
    inFlight: integer("in_flight").notNull().default(0),
    /** Since the newest registration a beat came, and what it lists is decided. Until then nobody knows what the worker has in hand. */
    told: boolean("told").notNull().default(true),
    registeredAt: instant("registered_at").notNull().defaultNow(),
    lastBeatAt: instant("last_beat_at").notNull().defaultNow(),
  },
  (table) => [
    // Listing the workers of a namespace.
    index("sessions_namespace_id_idx").on(table.namespaceId),
    check("sessions_stream_check", sql`${table.stream} >= 1`),
    check("sessions_in_flight_check", sql`${table.inFlight} >= 0`),
  ],
);

/** The lanes that a session serves, one per queue. */
export const sessionQueues = pgTable(
  "session_queues",
  {
    sessionId: text("session_id")
      .notNull()
      .references(() => sessions.id, { onDelete: "cascade" }),
    queueId: integer("queue_id")
      .notNull()
      .references(() => taskQueues.id),
    laneId: integer("lane_id")
      .notNull()
      .references(() => lanes.id),
    slots: integer("slots").notNull(),
    free: integer("free").notNull(),
  },
  (table) => [
    // A worker offers a queue once: its slots there are one number.
    primaryKey({ name: "session_queues_pkey", columns: [table.sessionId, table.queueId] }),
    // The window of a lane is computed from slots; a lie must not overflow it.
    check("session_queues_slots_check", sql`${table.slots} between 1 and 10000`),
    check("session_queues_free_check", sql`${table.free} between 0 and ${table.slots}`),
  ],
);

/** One counter, bumped in the transaction of every change that the live catalogue shows; coordinators poll it. */
export const registryEpoch = pgTable(
  "registry_epoch",
  {
    id: integer("id").primaryKey().default(1),
    epoch: bigint("epoch", { mode: "number" }).notNull(),
  },
  (table) => [
    // A second row would hide changes from whoever reads the first.
    check("registry_epoch_id_check", sql`${table.id} = 1`),
  ],
);

/** Chains by name; the rest is in their versions. */
export const chains = pgTable(
  "chains",
  {
    id: id(),
    namespaceId: namespaceId(),
    /** Full method name. */
    name: text("name").notNull(),
    /** Version that new runs use. */
    version: integer("version").notNull(),
  },
  (table) => [
    // Saves of one chain take turns on this row. Also the order of listing.
    unique("chains_namespace_id_name_key").on(table.namespaceId, table.name),
    check("chains_version_check", sql`${table.version} >= 1`),
  ],
);

/** Immutable versions of chains. */
export const chainVersions = pgTable(
  "chain_versions",
  {
    chainId: integer("chain_id")
      .notNull()
      .references(() => chains.id),
    /** Counted from 1. */
    version: integer("version").notNull(),
    /** An encoded ChainSpec. */
    spec: bytea("spec").notNull(),
    /** SHA-256 in hex of spec, contract and pins: an equal one is not a new version. */
    specHash: text("spec_hash").notNull(),
    /** Fingerprint of the chain's own contract revision. */
    contract: text("contract").notNull(),
    /** Fingerprint of the pinned contract revision by callee. */
    pins: jsonb("pins").$type<Record<string, string>>().notNull(),
    edges: jsonb("edges").$type<{ from: string; to: string }[]>().notNull(),
    createdAt: instant("created_at").notNull().defaultNow(),
  },
  (table) => [primaryKey({ name: "chain_versions_pkey", columns: [table.chainId, table.version] })],
);

/** Messages above the inline bound. While one is being written it has no reference and nobody can read it. */
export const payloads = pgTable(
  "payloads",
  {
    id: bigint("id", { mode: "number" }).primaryKey().generatedAlwaysAsIdentity(),
    namespaceId: namespaceId(),
    /** SHA-256 in hex: equal bytes in a namespace are one payload. Null while the chunks arrive. */
    reference: text("reference"),
    sha256: bytea("sha256"),
    sizeBytes: bigint("size_bytes", { mode: "number" }).notNull().default(0),
    createdAt: instant("created_at").notNull().defaultNow(),
    /** When a run last took it up, to a day: retention deletes what no run names any more (payload-uses.ts). */
    usedAt: instant("used_at").notNull().defaultNow(),
  },
  (table) => [
    // Retention looks for what was not used for long.
    index("payloads_used_at_idx").on(table.usedAt),
    unique("payloads_namespace_id_reference_key").on(table.namespaceId, table.reference),
    // A reference says that all chunks are there, so hash and reference come together.
    check("payloads_complete_check", sql`(${table.reference} is null) = (${table.sha256} is null)`),
    check("payloads_sha256_check", sql`octet_length(${table.sha256}) = 32`),
    // 64 MiB, the largest payload of the mesh.
    check("payloads_size_bytes_check", sql`${table.sizeBytes} between 0 and 67108864`),
    // Finds what was left behind by calls that broke off, without reading the complete ones.
    index("payloads_incomplete_idx").on(table.createdAt).where(sql`${table.reference} is null`),
  ],
);

/** The bytes of payloads, in order. */
export const payloadChunks = pgTable(
  "payload_chunks",
  {
    payloadId: bigint("payload_id", { mode: "number" })
      .notNull()
      .references(() => payloads.id, { onDelete: "cascade" }),
    /** Counted from 0. */
    no: integer("no").notNull(),
    bytes: bytea("bytes").notNull(),
  },
  (table) => [
    primaryKey({ name: "payload_chunks_pkey", columns: [table.payloadId, table.no] }),
    // 1 MiB: what one read holds in memory, and below every message bound.
    check("payload_chunks_bytes_check", sql`octet_length(${table.bytes}) <= 1048576`),
  ],
);

/** What the mesh does now and then, one coordinator at a time. */
export const chores = pgTable("chores", {
  name: text("name").primaryKey(),
  /** Coordinator that did it last, or does it. */
  holder: text("holder").notNull(),
  /** Nobody takes it before: pushed while it is done, and by a pause when it is done. */
  dueAt: instant("due_at").notNull(),
});
