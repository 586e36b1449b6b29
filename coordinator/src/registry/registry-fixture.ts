/** For tests: registries over a real database, real gRPC on loopback, the memory transport, and workers that speak plain stubs. */
import { type ClientDuplexStream, credentials } from "@grpc/grpc-js";
import {
  AttemptBeat,
  Beat,
  type BeatReply,
  ChainServiceClient,
  ChainServiceService,
  type ConnectRequest,
  type ConnectResponse,
  ContractServiceClient,
  ContractServiceService,
  PayloadServiceClient,
  PayloadServiceService,
  Register,
  type Registered,
  RegistryServiceClient,
  RegistryServiceService,
  RelayServiceService,
  TransportKind,
} from "@taskmesh/proto";
import {
  type Carrier,
  type ChannelConfig,
  createLogger,
  fromServiceError,
  MemoryBus,
  openRelayWork,
  type StatusError,
  type WorkTransport,
} from "@taskmesh/runtime";
import { type PostgresFixture, startPostgres } from "../../../test/fixtures/postgres.js";
import { waitFor } from "../../../test/fixtures/process.js";
import type { AttemptRef, BindVerdict, Intake } from "../pipeline/ports.js";
import { createChainService } from "../rpc/chain-service.js";
import { createContractService } from "../rpc/contract-service.js";
import { createListener, type Listener } from "../rpc/listener.js";
import { createPayloadService } from "../rpc/payload-service.js";
import { createRegistryService } from "../rpc/registry-service.js";
import { createRelayService } from "../rpc/relay-service.js";
import type { Database, Db } from "../store/db.js";
import { migrate } from "../store/migrate.js";
import { openPglite } from "../store/pglite.js";
import { openPostgres } from "../store/postgres.js";
import { descriptorSet, methodOf, type TestService } from "./descriptors-fixture.js";
import type { RegistryIntervals } from "./intervals.js";
import { createRegistry, type Registry, type RegistryOptions } from "./registry.js";

export { descriptorSet, methodOf, type TestService, waitFor };

/** Times at which everything that takes seconds in the product happens within a second. */
export const shortIntervals: Partial<RegistryIntervals> = {
  beatMs: 100,
  sessionTimeoutMs: 1_500,
  nonceMaxAgeMs: 600,
  probeMs: 100,
  unlistedMs: 300,
  bindingScanMs: 50,
  flushMs: 50,
  epochPollMs: 50,
  lapseScanMs: 100,
  orphanScanMs: 200,
  graceMs: 100,
  coordinatorBeatMs: 100,
  coordinatorTimeoutMs: 1_000,
  adoptionKeptMs: 100,
  adoptionWaitMs: 2_000,
  patienceMs: 5_000,
};

/** A database of one kind, migrated and empty. */
export interface TestDatabase {
  db: Database;
  /** Another connection to the same data, as another coordinator has; PGlite has only one. */
  another(): Database;
  dispose(): Promise<void>;
}

let cluster: Promise<PostgresFixture> | undefined;
let embedded: Promise<Database> | undefined;

/** Opens an empty database. The server (or PGlite) is shared within a test file; stop it with `stopDatabases`. */
export async function openTestDatabase(kind: Db["kind"]): Promise<TestDatabase> {
  if (kind === "pglite") {
    embedded ??= openPglite().then(async (db) => {
      await migrate(db);
      return db;
    });
    const db = await embedded;
    await db.query("truncate namespaces, coordinators, registry_epoch, bindings restart identity cascade");
    return { db, another: () => db, dispose: async () => {} };
  }
  cluster ??= startPostgres();
  const url = await (await cluster).createDatabase();
  const opened: Database[] = [];
  const open = (): Database => {
    const db = openPostgres({ url, connectionsMax: 4 });
    opened.push(db);
    return db;
  };
  const db = open();
  await migrate(db);
  return { db, another: open, dispose: async () => void (await Promise.all(opened.map((one) => one.close()))) };
}

export async function stopDatabases(): Promise<void> {
  const started = [cluster, embedded] as const;
  cluster = undefined;
  embedded = undefined;
  await (await started[0])?.dispose();
  await (await started[1])?.close();
}

/** An intake that keeps bindings in the database like the pipeline does, and remembers what it was told. */
export class RecordingIntake implements Pick<Intake, "bind" | "lose" | "claim"> {
  readonly lost: { lease: string; why: string }[] = [];
  readonly bound: string[] = [];
  /** Time that the newest beat asked for, by lease. */
  readonly asked = new Map<string, unknown>();
  /** Verdicts of leases that are not `current`. */
  readonly verdicts = new Map<string, BindVerdict>();
  /** No verdict comes before this. */
  hold: Promise<void> | undefined;

  constructor(private readonly db: Db) {}

  async bind(ref: AttemptRef, sessionId: string, ...said: unknown[]): Promise<BindVerdict> {
    this.asked.set(ref.lease, said[3]);
    await this.hold;
    const verdict = this.verdicts.get(ref.lease) ?? "current";
    if (verdict === "stale") return verdict;
    this.bound.push(ref.lease);
    await this.db.query(
      `insert into bindings (run_id, step, item, step_id, attempt, lease, session_id, started_at)
       values ($1::uuid, 0, $2::int, $3::text, $4::int, $5::text, $6::text, now())
       on conflict (run_id, step, item) do update set session_id = excluded.session_id`,
      [ref.runId, ref.item, ref.stepId, ref.attempt, ref.lease, sessionId],
    );
    return verdict;
  }

  async lose(ref: AttemptRef, why: string): Promise<void> {
    this.lost.push({ lease: ref.lease, why });
    await this.db.query("delete from bindings where lease = $1::text", [ref.lease]);
  }

  async claim(ref: AttemptRef): Promise<{ drop: string }> {
    return { drop: `${ref.stepId} is over` };
  }
}

/** A coordinator as far as the registry goes. */
export interface TestCoordinator {
  registry: Registry;
  intake: RecordingIntake;
  listener: Listener;
  client: RegistryServiceClient;
  payloads: PayloadServiceClient;
  chains: ChainServiceClient;
  contracts: ContractServiceClient;
  bus: MemoryBus;
  carrier: Carrier;
  /** How workers reach it. */
  channel: ChannelConfig;
  connect(): TestStream;
  stop(): Promise<void>;
}

/** Starts a coordinator's registry and its services on a free port. */
export async function startTestCoordinator(
  db: Database,
  options: Partial<RegistryOptions> & { bus?: MemoryBus } = {},
): Promise<TestCoordinator> {
  const { bus = new MemoryBus(), ...rest } = options;
  const log = createLogger("test", { level: "silent" });
  const intake = new RecordingIntake(db);
  const coordinatorId = rest.coordinatorId ?? "c1";
  const carrier = bus.carrier(coordinatorId);
  await carrier.start({ onCompletions: (delivery) => delivery.ack(), onWiped: () => {} });
  const registry = createRegistry({
    db,
    carrier,
    coordinatorId,
    address: "127.0.0.1:0",
    intake: () => intake,
    onCoordinatorLapsed: async () => {},
    log,
    ...rest,
    intervals: { ...shortIntervals, ...rest.intervals },
  });
  await registry.start();
  const listener = createListener({
    address: { host: "127.0.0.1", port: 0 },
    tokens: { tokens: [] },
    log,
    graceMs: 1_000,
    services(self) {
      self.addService(RegistryServiceService, createRegistryService({ db, registry, intake }));
      self.addService(
        RelayServiceService,
        createRelayService({ db, namespaces: registry.namespaces, carrier, draining: () => self.draining }),
      );
      self.addService(ChainServiceService, createChainService({ db, registry }));
      self.addService(ContractServiceService, createContractService({ db, registry }));
      self.addService(PayloadServiceService, createPayloadService({ db, namespaces: registry.namespaces }));
    },
  });
  await listener.start();
  const address = `127.0.0.1:${listener.address.port}`;
  // Streams of one test must not share a connection: breaking one would break all.
  const own = { "grpc.use_local_subchannel_pool": 1 };
  const client = new RegistryServiceClient(address, credentials.createInsecure(), own);
  const payloads = new PayloadServiceClient(address, credentials.createInsecure(), own);
  const chains = new ChainServiceClient(address, credentials.createInsecure(), own);
  const contracts = new ContractServiceClient(address, credentials.createInsecure(), own);
  const stop = async (): Promise<void> => {
    await registry.sessions.drain();
    for (const one of [client, payloads, chains, contracts]) one.close();
    await listener.stop();
    await registry.stop();
    await carrier.stop();
  };
  return {
    registry,
    intake,
    listener,
    client,
    payloads,
    chains,
    contracts,
    bus,
    carrier,
    channel: { addresses: [listener.address] },
    connect: () => new TestStream(client.connect()),
    stop,
  };
}

/** A worker's end of a Connect stream. */
export class TestStream {
  readonly replies: BeatReply[] = [];
  registered: Registered | undefined;
  /** How the call ended: OK is `null`. */
  status: StatusError | null | undefined;
  #number = 0n;

  constructor(readonly call: ClientDuplexStream<ConnectRequest, ConnectResponse>) {
    call.on("data", ({ message }: ConnectResponse) => {
      if (message?.$case === "registered") this.registered = message.value;
      else if (message) this.replies.push(message.value);
    });
    call.on("error", (error) => {
      this.status = fromServiceError(error);
    });
    call.on("end", () => setImmediate(() => (this.status ??= null)));
  }

  /** Sends Register and waits for the answer. */
  async register(message: Partial<Register>): Promise<Registered> {
    this.send(message);
    await waitFor("the answer to Register", () => this.registered !== undefined || this.status !== undefined);
    if (!this.registered) throw this.status ?? new Error("the stream ended without an answer");
    return this.registered;
  }

  /** Sends Register. */
  send(message: Partial<Register>): void {
    this.call.write({ message: { $case: "register", value: registerMessage(message) } });
  }

  /** Sends a beat and waits for its reply. */
  async beat(beat: Partial<Beat> = {}): Promise<BeatReply> {
    this.#number += 1n;
    const number = this.#number;
    this.call.write({ message: { $case: "beat", value: { ...Beat.create(), number, ...beat } } });
    let found: BeatReply | undefined;
    await waitFor("the reply to a beat", () => {
      found = this.replies.find((reply) => reply.number === number && !reply.drain);
      return found !== undefined || this.status !== undefined;
    });
    if (!found) throw this.status ?? new Error("the stream ended without a reply");
    return found;
  }

  async ended(): Promise<StatusError | null> {
    await waitFor("the end of a stream", () => this.status !== undefined);
    return this.status ?? null;
  }
}

/** A worker that beats by itself and echoes nonces until it is stopped. */
export class TestWorker {
  attempts: AttemptBeat[] = [];
  draining = false;
  /** Whether nonces that arrive are echoed. */
  echo = true;
  readonly starts: string[] = [];
  #nonce = "";
  #timer: NodeJS.Timeout | undefined;
  #beating = false;
  #transport: WorkTransport | undefined;

  private constructor(
    readonly stream: TestStream,
    readonly registered: Registered,
  ) {}

  static async start(
    coordinator: TestCoordinator,
    message: Partial<Register> = {},
    beatEveryMs = 50,
  ): Promise<TestWorker> {
    const stream = coordinator.connect();
    const worker = new TestWorker(stream, await stream.register(message));
    const { namespaceId, sessionId, lanes } = worker.registered;
    worker.#transport =
      worker.registered.transport === TransportKind.TRANSPORT_KIND_RELAY
        ? openRelayWork({ channel: coordinator.channel, namespace: "default", sessionId })
        : coordinator.bus.work({ namespaceId, sessionId });
    await worker.#transport.open(lanes, {
      onStart: (delivery) => {
        worker.starts.push(delivery.start.lease);
        delivery.ack();
      },
      onProbe: (nonce) => {
        if (worker.echo) worker.#nonce = nonce;
      },
      onClosed: () => {},
    });
    worker.#timer = setInterval(() => worker.#beat(), beatEveryMs);
    return worker;
  }

  get sessionId(): string {
    return this.registered.sessionId;
  }

  /** Stops beating but keeps the stream open, like a process that is stopped. */
  silence(): void {
    clearInterval(this.#timer);
  }

  /** Closes the stream like a worker that is done. */
  async leave(): Promise<void> {
    this.silence();
    this.stream.call.end();
    await this.#transport?.close();
  }

  /** Breaks the stream like a worker that dies. */
  async die(): Promise<void> {
    this.silence();
    this.stream.call.cancel();
    await this.#transport?.close();
  }

  /** One beat at a time: beats that wait behind each other through an outage would be answered too late to count as alive. */
  #beat(): void {
    if (this.#beating) return;
    this.#beating = true;
    void this.stream
      .beat({ nonce: this.#nonce, attempts: this.attempts, draining: this.draining })
      .catch(() => this.silence())
      .finally(() => {
        this.#beating = false;
      });
  }
}

/** An attempt in a beat. */
export function attemptBeat(lease: string): AttemptBeat {
  const runId = `00000000-0000-7000-8000-${Buffer.from(lease.padEnd(6, "_").slice(0, 6)).toString("hex")}`;
  return AttemptBeat.fromPartial({ runId, stepId: "step", attempt: 1, lease });
}

/** A Register message for services on one queue. */
export function registration(services: TestService[], slots = 10, taskQueue = "queue"): Partial<Register> {
  return {
    descriptorSet: descriptorSet(...services),
    queues: [{ taskQueue, methods: services.map(methodOf), slots }],
  };
}

function registerMessage(message: Partial<Register>): Register {
  return {
    ...Register.create(),
    namespace: "default",
    host: "test",
    pid: 1,
    version: "1",
    sdk: "test/1",
    transports: [TransportKind.TRANSPORT_KIND_MEMORY],
    ...message,
  };
}
