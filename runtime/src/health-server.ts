/**
 * GET /livez and GET /readyz for an orchestrator's probes, on an HTTP listener of its own: without TLS and without credentials, which
 * probes don't have, whatever the other addresses of the process ask for. Nothing else is told here.
 *
 * H1. /livez asks nothing of anyone: that it answers says that the event loop turns. A database or a broker that is away is no reason
 *     to restart a process.
 * H2. /readyz says whether the process can do its work now. No answer within `patienceMs` is a no.
 * H3. It listens before the rest has started and until the rest has stopped, so that a slow start and a long drain are not taken for death.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { sleep } from "./backoff.js";
import { listen } from "./http-listen.js";
import type { Logger } from "./log.js";
import { createService, type Service } from "./service.js";
import { type Address, formatAddress } from "./setting-kinds.js";

export interface HealthServerOptions {
  /** Absent: nothing is served. */
  address?: Address | undefined;
  /** Whether the process can do its work now; a rejection is a no. `signal` aborts when nobody waits for the answer any more. */
  ready(signal: AbortSignal): boolean | Promise<boolean>;
  /** Milliseconds that `ready` may take; default 2,000. Probes should wait a little longer. */
  patienceMs?: number;
  log: Logger;
}

export interface HealthServer extends Service {
  /** Where it listens, port 0 resolved; undefined when it serves nothing. */
  readonly address: Address | undefined;
}

const patienceMsDefault = 2_000;
/** Probes come one at a time; more than this is no probe. */
const connectionsMax = 64;
/** A request that takes longer to arrive is no probe either. */
const requestTimeoutMs = 5_000;

/**
 * A service that answers probes. Its start rejects when the address can't be bound: an orchestrator would take the silence for death
 * and never say why.
 */
export function createHealthServer(options: HealthServerOptions): HealthServer {
  let server: Server | undefined;
  let bound: Address | undefined;
  const service = createService("health server", {
    async start() {
      const { address, log } = options;
      if (!address) return;
      const made = createServer({ requestTimeout: requestTimeoutMs, headersTimeout: requestTimeoutMs }, (...pair) =>
        answerProbe(options, ...pair),
      );
      made.maxConnections = connectionsMax;
      await listen(made, address);
      server = made;
      bound = { host: address.host, port: (made.address() as AddressInfo).port };
      log.info({ address: formatAddress(bound) }, "answering probes");
    },
    async stop() {
      const stopping = server;
      server = undefined;
      bound = undefined;
      if (!stopping) return;
      const closed = new Promise<void>((resolve) => stopping.close(() => resolve()));
      stopping.closeAllConnections();
      await closed;
    },
  });
  return {
    name: service.name,
    start: service.start,
    stop: service.stop,
    get running() {
      return service.running;
    },
    get address() {
      return bound;
    },
  };
}

function answerProbe(options: HealthServerOptions, request: IncomingMessage, response: ServerResponse): void {
  const answer = (status: number, text: string): void => {
    response.writeHead(status, { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" });
    response.end(request.method === "HEAD" ? undefined : `${text}\n`);
  };
  const path = request.url?.split("?", 1)[0];
  if (path !== "/livez" && path !== "/readyz") return answer(404, "only /livez and /readyz are here");
  if (request.method !== "GET" && request.method !== "HEAD") return answer(405, "only GET");
  if (path === "/livez") return answer(200, "alive");
  void askReady(options).then((isReady) => answer(isReady ? 200 : 503, isReady ? "ready" : "not ready"));
}

/** H2. */
async function askReady({ ready, patienceMs = patienceMsDefault }: HealthServerOptions): Promise<boolean> {
  const waiting = new AbortController();
  const late = sleep(patienceMs, waiting.signal).then(() => false);
  try {
    return await Promise.race([Promise.resolve().then(() => ready(waiting.signal)), late]);
  } catch {
    return false;
  } finally {
    waiting.abort();
  }
}
