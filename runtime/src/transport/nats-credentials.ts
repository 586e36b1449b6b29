/**
 * Who may do what on the NATS server.
 *
 * Operator mode: the coordinator holds its own credentials and an account (signing) seed, and makes a user for each worker session:
 *
 *   publish    requests to and acks of the consumers of its lanes, questions about them, completions of its namespace
 *   subscribe  its own inboxes, its own probe subject
 *
 * N1. Lists of what is allowed, nothing denied: overlapping denials have been bypassed before.
 * N2. A user lives an hour at most and is renewed in the session, so a stolen one ends soon and nothing needs to be revoked.
 * N3. Open NATS (no operator mode) lets anyone who reaches it act as any worker: accepted on this machine only, unless the owner of
 *     the network says otherwise.
 */
import { createUser, decode, encodeUser, fromSeed, type User } from "@nats-io/jwt";
import { type Authenticator, credsAuthenticator } from "@nats-io/transport-node";
import { donePrefix, outputPrefix, probeSubject, sessionInboxPrefix, startStream } from "./nats-names.js";
import { type Lane, laneConsumer } from "./transport.js";

/** Longest life of a worker's user. */
export const userLifeMs = 3600 * 1000;

/** NATS takes anyone, and is not on this machine. */
export class OpenNatsRefused extends Error {
  readonly reason = "NATS_OPEN";

  constructor(server: string) {
    super(
      `${server} is not on this machine and workers would reach it without credentials: run nats-server in operator mode and set ` +
        "the account's seed, or allow open NATS on a network that only trusted workers reach",
    );
    this.name = "OpenNatsRefused";
  }
}

/** Throws OpenNatsRefused for a server that is not on the loopback interface. */
export function assertLoopback(servers: readonly string[]): void {
  for (const server of servers) {
    const { hostname } = new URL(server.includes("://") ? server : `nats://${server}`);
    const loopback = hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname);
    if (!loopback) throw new OpenNatsRefused(`${hostname}`);
  }
}

/** Reads the text of a .creds file, as `nsc` writes it, at each connect. */
export function credentialsAuthenticator(text: string): Authenticator {
  // The client finds no key in a text without an end of its last line, and secrets are read without theirs.
  return credsAuthenticator(new TextEncoder().encode(`${text.trim()}\n`));
}

/** Public key of the account that a .creds file's user belongs to; undefined if the text is no .creds file. */
export function accountOf(credentials: string): string | undefined {
  const jwt = /^\s*(eyJ[\w-]+\.[\w-]+\.[\w-]+)\s*$/m.exec(credentials)?.[1];
  if (jwt === undefined) return undefined;
  const claims = decode<User>(jwt);
  return claims.nats.issuer_account || claims.iss;
}

/** Throws, without showing it, if the seed is none of an account or signing key. */
export function assertAccountSeed(seed: string): void {
  let key = "";
  try {
    key = fromSeed(new TextEncoder().encode(seed.trim())).getPublicKey();
  } catch {
    // The library's error may quote the seed.
  }
  if (!key.startsWith("A"))
    throw new Error("the NATS account seed is not the seed of an account or of its signing key (SA...)");
}

export interface WorkerUserOptions {
  /** Seed of the account or of one of its signing keys. */
  accountSeed: string;
  /** Public key of the account, needed where `accountSeed` is a signing key's. */
  accountId?: string | undefined;
  namespaceId: number;
  sessionId: string;
  lanes: readonly Lane[];
  /** Default `userLifeMs`. */
  lifeMs?: number | undefined;
}

export interface WorkerUser {
  jwt: string;
  seed: string;
  expiresAtMs: number;
}

/** Makes the user of one worker session, limited to its lanes. */
export async function makeWorkerUser(options: WorkerUserOptions): Promise<WorkerUser> {
  const { namespaceId, sessionId, lanes, accountId } = options;
  const issuer = fromSeed(new TextEncoder().encode(options.accountSeed.trim()));
  const user = createUser();
  const expiresAtMs = Date.now() + Math.min(options.lifeMs ?? userLifeMs, userLifeMs);
  const grants: Partial<User> = {
    pub: {
      allow: [
        ...lanes.flatMap((lane) => laneSubjects(laneConsumer(lane))),
        `${donePrefix(namespaceId)}.*`,
        `${outputPrefix(namespaceId)}.*`,
      ],
      deny: [],
    },
    sub: { allow: [`${sessionInboxPrefix(sessionId)}.>`, probeSubject(namespaceId, sessionId)], deny: [] },
    ...(accountId && accountId !== issuer.getPublicKey() ? { issuer_account: accountId } : {}),
  };
  const jwt = await encodeUser(`worker-${sessionId}`, user, issuer, grants, { exp: Math.floor(expiresAtMs / 1000) });
  return { jwt, seed: new TextDecoder().decode(user.getSeed()), expiresAtMs };
}

/** What a worker publishes to in order to pull and ack one consumer. Acks have a second form from nats-server 2.15 on: domain and account first. */
function laneSubjects(consumer: string): string[] {
  return [
    `$JS.API.CONSUMER.MSG.NEXT.${startStream}.${consumer}`,
    `$JS.API.CONSUMER.INFO.${startStream}.${consumer}`,
    `$JS.ACK.${startStream}.${consumer}.>`,
    `$JS.ACK.*.*.${startStream}.${consumer}.>`,
  ];
}
