/**
 * Which addresses the HTTP action may connect to.
 *
 * E1. The decision is made on the address that the socket connects to, never on a name: a name is resolved once, each of its addresses is
 *     checked, and exactly these are connected to. So a name that resolves differently a moment later (rebinding) gains nothing.
 * E2. Each redirect opens its connection here and is checked again.
 * E3. Only global unicast addresses are public. Everything else is refused unless the allow list names it, and a name with one
 *     refused address is refused as a whole.
 *
 * Written forms such as 0x7f.1, 2130706433 or 0177.0.0.1 need no care: WHATWG URL parsing turns them into 127.0.0.1 first.
 */
import { lookup as dnsLookup } from "node:dns";
import { isIP, type Socket } from "node:net";
import ipaddr from "ipaddr.js";
import { buildConnector } from "undici";

/** What is allowed beside public addresses. Made by `parseAllowList`. */
export interface EgressPolicy {
  /** Lower case, without a dot at the end. */
  readonly hosts: ReadonlySet<string>;
  readonly ranges: readonly (readonly [ipaddr.IPv4 | ipaddr.IPv6, number])[];
}

/** An address of a name. */
export interface ResolvedAddress {
  address: string;
  family: 4 | 6;
}

/** All addresses of a name. Rejects with a DNS error (ENOTFOUND and such). */
export type Resolve = (hostname: string) => Promise<ResolvedAddress[]>;

/** A connection that the policy forbids. */
export class EgressRefused extends Error {
  override readonly name = "EgressRefused";
  readonly host: string;
  constructor(host: string, address: string) {
    super(`${host} is at ${address}, which is not a public address; TASKMESH_HTTP_ALLOW can allow it`);
    this.host = host;
  }
}

/** Time for one connection, TLS included. */
const connectTimeoutMs = 15_000;
/** Time for one of several addresses before the next is tried; Node's default of 250 ms fails on slow networks. */
const addressTimeoutMs = 3_000;
/** More addresses of one name than this are not tried. */
const addressesMax = 16;
/** Answers like a metadata service from inside Azure, though the address itself is public. */
const refusedPublic = new Set(["168.63.129.16"]);

/**
 * Parses entries such as `127.0.0.1`, `10.1.0.0/16`, `fd00::/8` and `intranet.example`.
 * Throws one Error that names every entry that is none of these.
 */
export function parseAllowList(entries: readonly string[]): EgressPolicy {
  const hosts = new Set<string>();
  const ranges: [ipaddr.IPv4 | ipaddr.IPv6, number][] = [];
  const wrong: string[] = [];
  for (const entry of entries) {
    const text = entry.trim();
    if (ipaddr.isValidCIDR(text) && isIP(text.split("/")[0]!) !== 0) ranges.push(ipaddr.parseCIDR(text));
    else if (isIP(text) !== 0)
      ranges.push([ipaddr.process(text), isIP(ipaddr.process(text).toString()) === 4 ? 32 : 128]);
    else if (/^(?!\d+(\.\d+)*$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_-]+)*\.?$/i.test(text))
      hosts.add(plainHost(text));
    else wrong.push(JSON.stringify(entry));
  }
  if (wrong.length > 0) {
    throw new Error(`not an IP address, a CIDR range or a host name: ${wrong.join(", ")}`);
  }
  return { hosts, ranges };
}

const plainHost = (host: string): string => host.toLowerCase().replace(/\.$/, "");

/** Whether a connection to `address`, found for the name `host`, is allowed. Anything that is not an IP address is not. */
export function isAllowed(policy: EgressPolicy, host: string, address: string): boolean {
  if (policy.hosts.has(plainHost(host))) return true;
  const parsed = parseAddress(address);
  if (!parsed) return false;
  for (const [range, bits] of policy.ranges) {
    if (range.kind() === parsed.kind() && parsed.match(range, bits)) return true;
  }
  return isPublic(parsed);
}

/** The address, with the mapped form ::ffff:10.0.0.1 as what it means, 10.0.0.1; undefined if it is none, or has a zone. */
function parseAddress(address: string): ipaddr.IPv4 | ipaddr.IPv6 | undefined {
  switch (isIP(address)) {
    case 4:
      return ipaddr.IPv4.parse(address);
    case 6:
      // In hexadecimal, since ipaddr.js takes the dotted ::1.2.3.4, which is another address, for the mapped one.
      return URL.canParse(`http://[${address}]`)
        ? ipaddr.process(new URL(`http://[${address}]`).hostname.slice(1, -1))
        : undefined;
  }
  return undefined;
}

function isPublic(address: ipaddr.IPv4 | ipaddr.IPv6): boolean {
  if (address instanceof ipaddr.IPv4) return address.range() === "unicast" && !refusedPublic.has(address.toString());
  const range = address.range();
  if (range === "rfc6052") {
    // NAT64: the last four bytes are the IPv4 address that is meant.
    return isPublic(new ipaddr.IPv4(address.toByteArray().slice(12)));
  }
  // 2000::/3 is all that is assigned as global unicast; this also refuses ::127.0.0.1, the old "compatible" form.
  return range === "unicast" && (address.parts[0]! & 0xe000) === 0x2000;
}

/** Resolves by the system's resolver, so that /etc/hosts counts. */
export const resolveBySystem: Resolve = (hostname) =>
  new Promise((settle, reject) => {
    dnsLookup(hostname, { all: true, verbatim: true }, (error, found) => {
      if (error) reject(error);
      else settle(found.map(({ address, family }) => ({ address, family: family === 6 ? 6 : 4 })));
    });
  });

/** A connector for undici that keeps the policy (E1). Its errors are EgressRefused or those of DNS, TCP and TLS. */
export function createConnector(policy: EgressPolicy, resolve: Resolve = resolveBySystem): buildConnector.connector {
  const checked = async (hostname: string): Promise<ResolvedAddress[]> => {
    const found = (await resolve(hostname)).slice(0, addressesMax);
    for (const { address } of found) {
      if (!isAllowed(policy, hostname, address)) throw new EgressRefused(hostname, address);
    }
    if (found.length === 0) throw Object.assign(new Error(`${hostname} has no address`), { code: "ENOTFOUND" });
    return found;
  };
  const connect = buildConnector({
    timeout: connectTimeoutMs,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: addressTimeoutMs,
    lookup(hostname, options, done) {
      checked(hostname).then(
        (found) => {
          if (options.all) done(null, found);
          else done(null, found[0]!.address, found[0]!.family);
        },
        (error: NodeJS.ErrnoException) => done(error, "", 4),
      );
    },
  });
  return (options, done) => {
    const host = options.hostname.replace(/^\[(.*)\]$/, "$1");
    // A literal address is connected to without a lookup.
    if (isIP(host) !== 0 && !isAllowed(policy, host, host)) {
      done(new EgressRefused(host, host), null);
      return;
    }
    connect(options, (...[error, socket]) => {
      if (error) return done(error, null);
      return checkPeer(policy, host, socket, done);
    });
  };
}

/** The second lock on the same door: whatever happened before, the peer of an open socket must be allowed. */
function checkPeer(policy: EgressPolicy, host: string, socket: Socket, done: buildConnector.Callback): void {
  const peer = socket.remoteAddress;
  if (peer === undefined || isAllowed(policy, host, peer)) return done(null, socket as never);
  socket.destroy();
  return done(new EgressRefused(host, peer), null);
}
