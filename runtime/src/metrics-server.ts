/** GET /metrics on an HTTP listener of its own, so that what scrapes needs no way to the gRPC port. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { bearerToken, createTokenCheck, type ServerTls, type TokenSource } from "./credentials.js";
import { listen } from "./http-listen.js";
import type { Logger } from "./log.js";
import { type MetricsExport, startMetrics } from "./metrics.js";
import { createService, type Service } from "./service.js";
import { type Address, formatAddress } from "./setting-kinds.js";

export interface MetricsServerOptions {
  /** Absent: nothing is served and nothing measured. */
  address?: Address | undefined;
  /** Asked for where there are any, unless a client certificate is. */
  tokens: TokenSource;
  tls?: ServerTls | undefined;
  log: Logger;
}

export interface MetricsServer extends Service {
  /** Where it listens, port 0 resolved; undefined when it serves nothing. */
  readonly address: Address | undefined;
}

/**
 * A service that serves GET /metrics. An address that can't be bound is logged and changes nothing else: measuring must not keep
 * a coordinator from its work.
 */
export function createMetricsServer(options: MetricsServerOptions): MetricsServer {
  let server: Server | undefined;
  let numbers: MetricsExport | undefined;
  let bound: Address | undefined;

  const service = createService("metrics server", {
    async start() {
      const { address, log } = options;
      if (!address) return;
      numbers = await startMetrics();
      const made = createHttpServer(options, numbers);
      try {
        await listen(made, address);
        server = made;
        bound = { host: address.host, port: (made.address() as AddressInfo).port };
        log.info({ address: formatAddress(bound) }, "serving metrics");
      } catch (error) {
        log.warn(
          { err: error, address: formatAddress(address) },
          "metrics are not served; set TASKMESH_METRICS_ADDRESS",
        );
      }
    },
    async stop() {
      const stopping = server;
      server = undefined;
      bound = undefined;
      stopping?.closeAllConnections();
      await new Promise<void>((resolve) => (stopping ? stopping.close(() => resolve()) : resolve()));
      await numbers?.stop();
      numbers = undefined;
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

function createHttpServer({ tokens, tls, log }: MetricsServerOptions, numbers: MetricsExport): Server {
  const check = createTokenCheck(tokens);
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    const answer = (status: number, text: string, type = "text/plain; charset=utf-8"): void => {
      response.writeHead(status, { "content-type": type }).end(request.method === "HEAD" ? undefined : text);
    };
    if (request.url?.split("?")[0] !== "/metrics") return answer(404, "only /metrics is here\n");
    if (request.method !== "GET" && request.method !== "HEAD") return answer(405, "only GET\n");
    // With a client authority, TLS has refused everyone without a certificate.
    if (check.required && !tls?.clientCa) {
      const token = bearerToken(request.headers.authorization);
      if (token === undefined || !check.accepts(token)) {
        response.setHeader("www-authenticate", "Bearer");
        return answer(401, "a bearer token is required\n");
      }
    }
    numbers.render().then(
      (text) => answer(200, text, numbers.contentType),
      (error: unknown) => {
        log.error({ err: error }, "metrics can't be rendered");
        answer(500, "internal error\n");
      },
    );
  };
  if (!tls) return createServer(handle);
  const { cert, key, clientCa } = tls;
  return createTlsServer({ cert, key, ...(clientCa ? { ca: clientCa, requestCert: true } : {}) }, handle);
}
