/** The REST gateway: `startGateway` serves the HTTP API of a mesh over the gRPC of its coordinators. */
import { setMaxListeners } from "node:events";
import { createLogger, formatAddress, type GatewayConfig, type Logger } from "@taskmesh/runtime";
import { GatewayContext } from "./context.js";
import { ContractBook } from "./contract-book.js";
import { ContractCache } from "./contracts.js";
import { createServer } from "./server.js";
import { Upstream } from "./upstream.js";

export interface GatewayDeps {
  /** Default: a logger named "gateway". */
  log?: Logger;
}

export interface Gateway {
  /** Where it listens, `host:port`; the port is the real one if the configuration asked for any. */
  readonly address: string;
  /** Base of its URLs, `http://127.0.0.1:7480`. */
  readonly url: string;
  /** Whether it can serve now: it does not stop, and a coordinator says that it is serving. Answers within two seconds. */
  ready(signal: AbortSignal): Promise<boolean>;
  /** Ends event streams, lets other requests finish within the configured time, then closes. Safe to repeat. */
  stop(): Promise<void>;
}

const IDLE_CHECK_MS = 50;

/**
 * Starts a gateway. It serves as soon as it listens; while no coordinator can be reached, requests are answered with 503.
 * Rejects when the address can't be bound.
 */
export async function startGateway(config: GatewayConfig, deps: GatewayDeps = {}): Promise<Gateway> {
  const log = deps.log ?? createLogger("gateway");
  const upstream = new Upstream(config.coordinator, log);
  const stopping = new AbortController();
  setMaxListeners(0, stopping.signal);
  const contracts = new ContractCache(upstream);
  const book = new ContractBook(upstream, contracts, log);
  const context = new GatewayContext(config, log, upstream, contracts, book, stopping.signal);
  const app = createServer(context);
  const { host, port } = config.httpAddress;
  try {
    await app.listen({ host, port });
  } catch (error) {
    upstream.close();
    throw error;
  }
  const bound = app.server.address();
  const address = formatAddress({ host, port: typeof bound === "object" && bound !== null ? bound.port : port });
  const coordinators = config.coordinator.addresses.map(formatAddress);
  log.info({ address, coordinators }, "gateway listens");
  let stopped: Promise<void> | undefined;
  const stop = async () => {
    stopping.abort();
    // A connection whose last answer ends during the stop is idle only then.
    const idle = setInterval(() => app.server.closeIdleConnections(), IDLE_CHECK_MS);
    const late = setTimeout(() => app.server.closeAllConnections(), config.stopTimeoutMs);
    try {
      await app.close();
    } finally {
      clearInterval(idle);
      clearTimeout(late);
      upstream.close();
    }
  };
  return {
    address,
    url: `${config.tls === undefined ? "http" : "https"}://${address}`,
    ready: (signal) => context.ready(signal),
    stop: () => {
      stopped ??= stop();
      return stopped;
    },
  };
}
