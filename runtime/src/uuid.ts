/**
 * Identifiers: UUIDs of version 7 (RFC 9562), which sort by the time of their making, and random tokens.
 *
 * Ids of one process grow strictly, also within a millisecond and when the clock steps back (method 1 of section 6.2: a
 * counter of 12 bits in rand_a with 14 more bits of rand_b, seeded at random each millisecond).
 */
import { randomBytes } from "node:crypto";

/** Bits of the counter: 12 in rand_a, 14 in rand_b. */
const counterMax = 2 ** 26 - 1;
/** Seeds leave the top bit clear, so at least 2^25 ids fit into one millisecond. */
const seedMask = 2 ** 25 - 1;
/** Random bytes are drawn for this many ids at once: one system call each would cost more than the rest. */
const poolIds = 256;
const bytesPerId = 10;

let lastMs = -1;
let counter = 0;
let pool = Buffer.alloc(0);
let used = 0;

/** A new UUIDv7, greater than every one made before in this process. `nowMs`: milliseconds since 1970, default the host's clock. */
export function uuidv7(nowMs: number = Date.now()): string {
  if (used + bytesPerId > pool.length) {
    pool = randomBytes(poolIds * bytesPerId);
    used = 0;
  }
  const random = pool.subarray(used, used + bytesPerId);
  used += bytesPerId;

  const ms = Math.floor(nowMs);
  if (ms > lastMs) {
    lastMs = ms;
    counter = random.readUInt32BE(6) & seedMask;
  } else if (counter < counterMax) {
    counter += 1;
  } else {
    lastMs += 1;
    counter = random.readUInt32BE(6) & seedMask;
  }
  return format(lastMs, counter, random);
}

let timeOfMs = -1;
let time = "";

function format(ms: number, count: number, random: Buffer): string {
  if (ms !== timeOfMs) {
    // Numbers above 32 bits are slow to print, and most ids share their millisecond with others.
    timeOfMs = ms;
    time = ms.toString(16).padStart(12, "0");
    time = `${time.slice(0, 8)}-${time.slice(8)}`;
  }
  const high = (0x7000 | (count >>> 14)).toString(16);
  const low = (0x8000 | (count & 0x3fff)).toString(16);
  return `${time}-${high}-${low}-${random.toString("hex", 0, 6)}`;
}

/** Milliseconds since 1970 at which a UUIDv7 was made; undefined if `id` is none. */
export function uuidTimeMs(id: string): number | undefined {
  if (!/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id)) return undefined;
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
}

const tokenBytes = 18;
let tokenPool = Buffer.alloc(0);
let tokensUsed = 0;

/** 24 random url-safe characters (144 bits): leases, nonces, session secrets. */
export function randomToken(): string {
  if (tokensUsed + tokenBytes > tokenPool.length) {
    tokenPool = randomBytes(poolIds * tokenBytes);
    tokensUsed = 0;
  }
  const token = tokenPool.toString("base64url", tokensUsed, tokensUsed + tokenBytes);
  tokensUsed += tokenBytes;
  return token;
}
