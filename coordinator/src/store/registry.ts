/** SQL of namespaces, contracts, task queues, lanes and the registry's epoch. */
import { TransportKind } from "@taskmesh/proto";
import { type Db, textArray } from "./db.js";

/** Who implements a method. */
export type CallableKind = "action" | "chain";

/** One revision of a contract, ready to be stored. */
export interface NewContract {
  method: string;
  fingerprint: string;
  inputType: string;
  outputType: string;
  /** Leading comment of the rpc, "" if unknown. */
  description: string;
  /** SHA-256 in hex of the encoded FileDescriptorSet. */
  descriptorHash: string;
  descriptorSet: Uint8Array;
}

/** A stored revision without its descriptors. */
export interface ContractRow {
  method: string;
  fingerprint: string;
  revision: number;
  kind: CallableKind;
  inputType: string;
  outputType: string;
  description: string;
  createdAtMs: number;
  /** It broke its predecessor and waits to be allowed: nothing is dispatched to it. */
  quarantined: boolean;
}

/** Makes the namespaces that are missing; `default` always has id 1. */
export async function ensureNamespaces(db: Db, names: readonly string[]): Promise<void> {
  await db.query("insert into namespaces (id, name) values (1, 'default') on conflict do nothing");
  if (names.length === 0) return;
  // The anti-join spares identity values: a conflict would burn one at each start.
  await db.query(
    `insert into namespaces (name)
     select name from unnest($1::text[]) as wanted (name)
     where not exists (select from namespaces n where n.name = wanted.name)
     on conflict do nothing`,
    [textArray([...new Set(names)])],
  );
}

/** Every namespace by name. */
export function readNamespaces(db: Db): Promise<{ id: number; name: string }[]> {
  return db.query("select id, name from namespaces order by id");
}

/** The registry's epoch; 0 before the first change. */
export async function readEpoch(db: Db): Promise<number> {
  const [row] = await db.query<{ epoch: number }>("select epoch::float8 as epoch from registry_epoch where id = 1");
  return row?.epoch ?? 0;
}

/** Says that the live catalogue changed. Last in its transaction, since everybody else's change waits for this row. */
export async function bumpEpoch(tx: Db): Promise<void> {
  await tx.query(
    "insert into registry_epoch (id, epoch) values (1, 1) on conflict (id) do update set epoch = registry_epoch.epoch + 1",
  );
}

const quarantinedColumn = `exists (select from contract_verdicts v where v.namespace_id = c.namespace_id and v.method = c.method
  and v.fingerprint = c.fingerprint and v.verdict = 'quarantined') as quarantined`;

/** Claims methods for one kind of implementation. Returns those that belong to the other kind; then nothing may be kept. */
export async function claimMethods(
  tx: Db,
  namespaceId: number,
  kind: CallableKind,
  methods: readonly string[],
): Promise<string[]> {
  // Sorted, and locked even where they exist: registrations of one method take turns, so revisions get consecutive numbers
  // and two transactions never wait for each other in a circle.
  await tx.query(
    `insert into callables (namespace_id, method, kind)
     select $1::int, method, $2::text from unnest($3::text[]) as m (method) order by method
     on conflict do nothing`,
    [namespaceId, kind, textArray(methods)],
  );
  const rows = await tx.query<{ method: string; kind: CallableKind }>(
    `select method, kind from callables
     where namespace_id = $1::int and method = any($2::text[]) order by method for update`,
    [namespaceId, textArray(methods)],
  );
  return rows.filter((row) => row.kind !== kind).map((row) => row.method);
}

/** Stores the revisions that are new; the caller holds their methods (claimMethods). Returns how many were. */
export async function insertContracts(
  tx: Db,
  namespaceId: number,
  kind: CallableKind,
  contracts: readonly NewContract[],
): Promise<number> {
  const sets = new Map(contracts.map((contract) => [contract.descriptorHash, contract.descriptorSet]));
  // One statement each: sets are large, and one registration has few different ones.
  for (const [hash, bytes] of sets) {
    await tx.query(
      "insert into descriptor_sets (namespace_id, hash, bytes) values ($1::int, $2::text, $3::bytea) on conflict do nothing",
      [namespaceId, hash, bytes],
    );
  }
  const column = (read: (contract: NewContract) => string): string => textArray(contracts.map(read));
  const rows = await tx.query(
    `insert into contracts (namespace_id, method, fingerprint, revision, kind, descriptor_hash, input_type, output_type, description)
     select $1::int, n.method, n.fingerprint,
       coalesce((select max(c.revision) from contracts c where c.namespace_id = $1::int and c.method = n.method), 0)
         + (row_number() over (partition by n.method order by n.fingerprint))::int,
       $2::text, n.hash, n.input, n.output, n.description
     from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
       as n (method, fingerprint, hash, input, output, description)
     where not exists (
       select from contracts c
       where c.namespace_id = $1::int and c.method = n.method and c.fingerprint = n.fingerprint)
     returning 1 as one`,
    [
      namespaceId,
      kind,
      column((contract) => contract.method),
      column((contract) => contract.fingerprint),
      column((contract) => contract.descriptorHash),
      column((contract) => contract.inputType),
      column((contract) => contract.outputType),
      column((contract) => contract.description),
    ],
  );
  return rows.length;
}

/**
 * Which of "method@fingerprint" are stored as contracts of this kind, and whether they are in quarantine: lets a repeated registration lock
 * nothing.
 */
export async function knownContracts(
  db: Db,
  namespaceId: number,
  kind: CallableKind,
  methods: readonly string[],
): Promise<Map<string, { quarantined: boolean }>> {
  const rows = await db.query<{ entry: string; quarantined: boolean }>(
    `select c.method || '@' || c.fingerprint as entry, ${quarantinedColumn} from contracts c
     join callables a on a.namespace_id = c.namespace_id and a.method = c.method and a.kind = $2::text
     where c.namespace_id = $1::int and c.method = any($3::text[])`,
    [namespaceId, kind, textArray(methods)],
  );
  return new Map(rows.map(({ entry, quarantined }) => [entry, { quarantined }]));
}

/** Ids of queues by name; makes those that are missing. */
export async function ensureQueues(
  tx: Db,
  namespaceId: number,
  names: readonly string[],
): Promise<Map<string, number>> {
  const params = [namespaceId, textArray(names)];
  const read = (): Promise<{ id: number; name: string }[]> =>
    tx.query("select id, name from task_queues where namespace_id = $1::int and name = any($2::text[])", params);
  let rows = await read();
  if (rows.length < names.length) {
    await tx.query(
      `insert into task_queues (namespace_id, name)
       select $1::int, name from unnest($2::text[]) as wanted (name)
       where not exists (select from task_queues q where q.namespace_id = $1::int and q.name = wanted.name)
       order by name on conflict do nothing`,
      params,
    );
    rows = await read();
  }
  return new Map(rows.map((row) => [row.name, row.id]));
}

/** Id of the lane of a queue with exactly these contracts (sorted "method@fingerprint"); makes it if it is missing. */
export async function ensureLane(
  tx: Db,
  lane: { queueId: number; contractsHash: string; contracts: readonly string[] },
): Promise<number> {
  const read = (): Promise<{ id: number }[]> =>
    tx.query("select id from lanes where queue_id = $1::int and contracts_hash = $2::text", [
      lane.queueId,
      lane.contractsHash,
    ]);
  let [row] = await read();
  if (!row) {
    await tx.query(
      `insert into lanes (queue_id, contracts_hash, contracts) values ($1::int, $2::text, $3::text[]) on conflict do nothing`,
      [lane.queueId, lane.contractsHash, textArray(lane.contracts)],
    );
    [row] = await read();
  }
  if (!row) throw new Error(`lane ${lane.contractsHash} of queue ${lane.queueId} vanished within its transaction`);
  return row.id;
}

/** A lane with workers that can be given work, and the sum of their slots. */
export interface LiveLaneRow {
  namespaceId: number;
  queueId: number;
  taskQueue: string;
  laneId: number;
  contracts: string[];
  slots: number;
  /** Slots of its smallest worker that takes packs of starts; 1 if one does not. */
  slotsMin: number;
}

/** Every lane that has live, assignable, not draining workers. */
export async function readLiveLanes(db: Db): Promise<LiveLaneRow[]> {
  return db.query(
    `select q.namespace_id as "namespaceId", q.id as "queueId", q.name as "taskQueue", l.id as "laneId", to_jsonb(l.contracts) as contracts,
       s.slots::float8 as slots, s.slots_min::float8 as "slotsMin"
     from (
       select sq.lane_id, sum(sq.slots) as slots, min(case when sessions.transport = $1::int then sq.slots else 1 end) as slots_min from session_queues sq
       join sessions on sessions.id = sq.session_id and sessions.assignable and not sessions.draining
       group by sq.lane_id
     ) s
     join lanes l on l.id = s.lane_id
     join task_queues q on q.id = l.queue_id
     order by l.id`,
    [TransportKind.TRANSPORT_KIND_JETSTREAM],
  );
}

const contractColumns = `c.method, c.fingerprint, c.revision, c.kind, c.input_type as "inputType", c.output_type as "outputType",
  c.description, (extract(epoch from c.created_at) * 1000)::float8 as "createdAtMs", ${quarantinedColumn}`;

/** The newest revision of every action of a namespace (or of one), by name; one in quarantine only where there is no other. */
export function readActions(db: Db, namespaceId: number, method?: string): Promise<ContractRow[]> {
  return db.query(
    `select distinct on (c.method collate "C") ${contractColumns}
     from callables a
     join contracts c on c.namespace_id = a.namespace_id and c.method = a.method and c.kind = a.kind
     where a.namespace_id = $1::int and a.kind = 'action' and ($2::text is null or a.method = $2::text)
     order by c.method collate "C", quarantined, c.revision desc`,
    [namespaceId, method ?? null],
  );
}

/** Who implements a method now, undefined if nobody ever did. */
export async function readCallable(db: Db, namespaceId: number, method: string): Promise<CallableKind | undefined> {
  const [row] = await db.query<{ kind: CallableKind }>(
    "select kind from callables where namespace_id = $1::int and method = $2::text",
    [namespaceId, method],
  );
  return row?.kind;
}

/** Every revision of a method, oldest first. */
export function readRevisions(db: Db, namespaceId: number, method: string): Promise<ContractRow[]> {
  return readRevisionsOf(db, namespaceId, [method]);
}

/** Every revision of several methods, by method and oldest first. */
export function readRevisionsOf(db: Db, namespaceId: number, methods: readonly string[]): Promise<ContractRow[]> {
  return db.query(
    `select ${contractColumns} from contracts c
     where c.namespace_id = $1::int and c.method = any($2::text[]) order by c.method, c.revision`,
    [namespaceId, textArray(methods)],
  );
}

/** Every method that has an active implementation in any namespace. */
export async function readServedMethods(db: Db): Promise<string[]> {
  const rows = await db.query<{ method: string }>("select distinct method from callables");
  return rows.map(({ method }) => method);
}

/** Every revision of every method of a namespace that has an active implementation; the newest first within a method, those in quarantine last. */
export function readAllContracts(db: Db, namespaceId: number): Promise<ContractRow[]> {
  return db.query(
    `select ${contractColumns} from contracts c
     join callables a on a.namespace_id = c.namespace_id and a.method = c.method and a.kind = c.kind
     where c.namespace_id = $1::int order by c.method collate "C", quarantined, c.revision desc`,
    [namespaceId],
  );
}

/** One revision with its descriptors: by fingerprint, by method (then the newest that is not in quarantine), or by both. */
export async function readContract(
  db: Db,
  namespaceId: number,
  which: { fingerprint?: string; method?: string },
): Promise<(ContractRow & { descriptorSet: Uint8Array }) | undefined> {
  const [row] = await db.query<ContractRow & { descriptorSet: Uint8Array }>(
    `select ${contractColumns}, d.bytes as "descriptorSet" from contracts c
     join descriptor_sets d on d.namespace_id = c.namespace_id and d.hash = c.descriptor_hash
     where c.namespace_id = $1::int
       and ($2::text is null or c.fingerprint = $2::text) and ($3::text is null or c.method = $3::text)
     order by quarantined, c.revision desc, c.method limit 1`,
    [namespaceId, which.fingerprint ?? null, which.method ?? null],
  );
  return row;
}

/** Where the descriptors of a revision are. */
export interface ContractPlace {
  fingerprint: string;
  method: string;
  descriptorHash: string;
}

/** Where the descriptors of revisions are; those that are not in the namespace are left out. */
export function readContractPlaces(
  db: Db,
  namespaceId: number,
  fingerprints: readonly string[],
): Promise<ContractPlace[]> {
  return db.query(
    `select distinct on (fingerprint) fingerprint, method, descriptor_hash as "descriptorHash" from contracts
     where namespace_id = $1::int and fingerprint = any($2::text[]) order by fingerprint, revision desc, method`,
    [namespaceId, textArray(fingerprints)],
  );
}

/** Every method of a namespace that has an active implementation, with its kind; at most 10,000. */
export async function readCallables(db: Db, namespaceId: number): Promise<Map<string, CallableKind>> {
  const rows = await db.query<{ method: string; kind: CallableKind }>(
    "select method, kind from callables where namespace_id = $1::int order by method limit 10000",
    [namespaceId],
  );
  return new Map(rows.map((row) => [row.method, row.kind]));
}

/** Fingerprints of the newest revisions of actions, at most `limit` of each method. */
export function readFingerprints(
  db: Db,
  namespaceId: number,
  methods: readonly string[],
  limit: number,
): Promise<{ method: string; fingerprint: string }[]> {
  return db.query(
    `select m.method, c.fingerprint from unnest($2::text[]) as m (method)
     cross join lateral (
       select fingerprint from contracts
       where namespace_id = $1::int and method = m.method and kind = 'action'
       order by revision desc limit $3::int) c`,
    [namespaceId, textArray(methods), limit],
  );
}
