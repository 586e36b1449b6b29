/** Looks at a NATS deployment without changing anything: what a coordinator needs there, and whether it is so. */
import {
  AckPolicy,
  type ConsumerInfo,
  type JetStreamManager,
  jetstreamManager,
  type StreamInfo,
} from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { type Finding, findingsOf } from "../finding.js";
import { isLoopback } from "../setting-kinds.js";
import { streamConfigs } from "./jetstream-provision.js";
import { credentialsAuthenticator } from "./nats-credentials.js";
import { doneConsumer, doneStream, startStream } from "./nats-names.js";
import { type Lane, laneConsumer, messageBytesMax } from "./transport.js";

const timeoutMs = 3_000;
/** Oldest server that the mesh works with. */
const oldestVersion = [2, 9, 0];
/** Oldest server that gets security fixes. */
const maintainedVersion = [2, 12, 12];

export interface NatsDiagnosisOptions {
  servers: readonly string[];
  credentials?: string | undefined;
  /** Copies of the streams that are wanted. */
  replicas: number;
  /** Live coordinators, each with a consumer of its completions; undefined: the database could not say. */
  coordinators: readonly string[] | undefined;
  /** Lanes with live workers, each with a consumer. */
  lanes: readonly Lane[];
}

/** Never rejects: what can't be looked at is a finding. */
export async function diagnoseNats(options: NatsDiagnosisOptions): Promise<Finding[]> {
  const { list, add } = findingsOf("nats");
  const authenticator = options.credentials ? credentialsAuthenticator(options.credentials) : undefined;
  let nc: NatsConnection;
  try {
    const servers = [...options.servers];
    nc = await connect({ servers, timeout: timeoutMs, reconnect: false, ...(authenticator ? { authenticator } : {}) });
  } catch (error) {
    const fix = "Start it, or correct NATS_URL and NATS_CREDENTIALS_FILE.";
    add("connection", `can't connect: ${messageOf(error)}`, { level: "fail", fix });
    return list;
  }
  try {
    checkServer(nc, add);
    const jsm = await jetstreamManager(nc, { checkAPI: false, timeout: timeoutMs });
    if (await checkJetStream(jsm, add)) await checkStreams(jsm, options, nc.info?.cluster !== undefined, add);
  } catch (error) {
    add("JetStream", messageOf(error), { level: "fail", fix: "See the server's log." });
  } finally {
    await nc.close().catch(() => {});
  }
  return list;
}

type Add = ReturnType<typeof findingsOf>["add"];

function checkServer(nc: NatsConnection, add: Add): void {
  const { info } = nc;
  const version = info?.version ?? "unknown";
  if (isOlder(version, oldestVersion)) {
    add("version", `nats-server ${version}`, { level: "fail", fix: "Install nats-server 2.9 or newer." });
  } else if (isOlder(version, maintainedVersion)) {
    const fix = "It works; 2.12.12 and 2.14.3 are the oldest with known security holes closed.";
    add("version", `nats-server ${version}`, { level: "warn", fix });
  } else add("version", `nats-server ${version}`);
  const payload = info?.max_payload ?? 0;
  const needed = messageBytesMax + 8 * 1024;
  const small =
    payload < needed && ({ level: "fail", fix: `Set max_payload to 1MB; ${needed} bytes are needed.` } as const);
  add("max_payload", `${payload} bytes`, small);
  const host = new URL(nc.getServer().includes("://") ? nc.getServer() : `nats://${nc.getServer()}`).hostname;
  const secured = info?.tls_required === true || isLoopback(host.replace(/^\[|\]$/g, ""));
  const plain = { level: "warn", fix: "Turn TLS on in nats-server and use tls:// in NATS_URL." } as const;
  add("encryption", secured ? "TLS, or this machine alone" : "plain, to another machine", !secured && plain);
}

async function checkJetStream(jsm: JetStreamManager, add: Add): Promise<boolean> {
  try {
    const { limits, storage } = await jsm.getAccountInfo();
    const max = limits.max_storage;
    const full = max > 0 && storage > 0.7 * max;
    const fix = "Give the account more storage: at 100 % no work is dispatched.";
    add(
      "JetStream storage",
      `${storage} bytes used of ${max < 0 ? "what the disk has" : max}`,
      full && { level: "warn", fix },
    );
    // Servers don't tell it to clients. Nothing that only JetStream has is needed, so any value will do.
    add("sync_interval", "as the server has it (2 min by default); what it loses is sent again from Postgres");
    return true;
  } catch (error) {
    const fix = "Turn JetStream on (jetstream { store_dir: … }), and let the credentials' account use it.";
    add("JetStream", messageOf(error), { level: "fail", fix });
    return false;
  }
}

async function checkStreams(
  jsm: JetStreamManager,
  { replicas, coordinators, lanes }: NatsDiagnosisOptions,
  clustered: boolean,
  add: Add,
): Promise<void> {
  if (clustered && replicas < 3) {
    add("copies", `${replicas} in a cluster`, {
      level: "warn",
      fix: "Set NATS_REPLICAS=3, so that one server may go.",
    });
  }
  for (const wanted of streamConfigs(replicas)) {
    const info = await jsm.streams.info(wanted.name).catch(() => undefined);
    if (!info) {
      // Before the first coordinator ran, nothing is amiss.
      const missing = { level: "fail", fix: "A live coordinator makes it within 2 s: see its log." } as const;
      const none = coordinators?.length === 0;
      add(`stream ${wanted.name}`, none ? "not made yet: no coordinator has run" : "missing", !none && missing);
      continue;
    }
    const wrong = streamFaults(info, wanted);
    const fix =
      "Stop the coordinators, delete the stream (nats stream rm), start them: they make it and send its work again.";
    const verdict = wrong.length > 0 && ({ level: "fail", fix } as const);
    add(
      `stream ${wanted.name}`,
      wrong.join("; ") || `${info.config.num_replicas} copies on file, ${info.state.messages} messages`,
      verdict,
    );
    const leaderless = info.cluster !== undefined && info.cluster !== null && !info.cluster.leader;
    if (leaderless)
      add(`leader of ${wanted.name}`, "none", {
        level: "fail",
        fix: "Start the missing servers: a majority is needed.",
      });
  }
  await checkConsumers(jsm, startStream, lanes.map(laneConsumer), add);
  await checkConsumers(jsm, doneStream, (coordinators ?? []).map(doneConsumer), add);
}

function streamFaults(info: StreamInfo, wanted: ReturnType<typeof streamConfigs>[number]): string[] {
  const faults: string[] = [];
  for (const key of ["retention", "storage", "num_replicas", "max_msg_size", "duplicate_window", "max_age"] as const) {
    if (info.config[key] !== wanted[key]) faults.push(`${key} is ${info.config[key]}, not ${wanted[key]}`);
  }
  const subjects = info.config.subjects.join(", ");
  if (subjects !== wanted.subjects.join(", ")) faults.push(`subjects are ${subjects}`);
  return faults;
}

async function checkConsumers(
  jsm: JetStreamManager,
  stream: string,
  wanted: readonly string[],
  add: Add,
): Promise<void> {
  if (wanted.length === 0) return;
  const found = new Map<string, ConsumerInfo>();
  try {
    for await (const info of jsm.consumers.list(stream)) found.set(info.name, info);
  } catch {
    return; // The stream is missing, which has been said.
  }
  const faults: string[] = [];
  for (const name of wanted) {
    const info = found.get(name);
    if (!info) faults.push(`${name} is missing`);
    else if (
      info.config.ack_policy !== AckPolicy.Explicit ||
      (info.config.max_ack_pending ?? 0) > 0 ||
      (info.config.max_deliver ?? -1) > 0
    )
      faults.push(`${name} was changed`);
  }
  const fix =
    "A live coordinator makes what is missing within 2 s: see its log. Delete what was changed (nats consumer rm).";
  const shown = faults.slice(0, 5).join("; ") + (faults.length > 5 ? `; and ${faults.length - 5} more` : "");
  add(
    `consumers of ${stream}`,
    shown || `${wanted.length} as they should be`,
    faults.length > 0 && { level: "fail", fix },
  );
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

function isOlder(version: string, than: readonly number[]): boolean {
  const numbers = version.split(".").map((part) => Number.parseInt(part, 10));
  for (const [i, wanted] of than.entries()) {
    const has = numbers[i] ?? 0;
    if (has !== wanted) return has < wanted;
  }
  return false;
}
