/**
 * The gRPC server of a coordinator: it listens, guards, limits, and goes away in good order.
 *
 *   start            services are added, the address is bound
 *   drain            new calls are refused (UNAVAILABLE, DRAINING), `draining` aborts so that long streams end themselves
 *   stop             drain, then wait for the calls in flight, at most `graceMs`, then cut what is left
 *
 * The grace has to end by a timer of ours: the library's tryShutdown never calls back while a stream is open.
 */
import { setMaxListeners } from "node:events";
import {
  logVerbosity,
  Server,
  ServerCredentials,
  type ServerOptions,
  type ServiceDefinition,
  setLogVerbosity,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import {
  type Address,
  createService,
  createTokenCheck,
  formatAddress,
  isLoopback,
  type Logger,
  type ServerTls,
  type Service,
  type TokenSource,
} from "@taskmesh/runtime";
import { createAuthenticator } from "./auth.js";
import { createGuard, withSafeDecoding } from "./interceptors.js";

/** Largest request; larger things are sent in chunks (PayloadService). */
export const requestBytesMax = 4 * 1024 * 1024;
/** An answer may hold a whole run with its payloads; a run that is larger is shown without them. */
const responseBytesMax = 64 * 1024 * 1024;
/** Calls of one connection at once: a gateway waits for thousands of results over one; beyond that a peer is broken or hostile. */
const streamsPerConnectionMax = 10_000;
/** Memory that one connection may hold in HTTP/2 buffers, in megabytes. */
const sessionMemoryMb = 128;
/** Time for calls in flight after a drain. */
const graceMsDefault = 5_000;

const limits: ServerOptions = {
  "grpc.max_receive_message_length": requestBytesMax,
  "grpc.max_send_message_length": responseBytesMax,
  "grpc.max_concurrent_streams": streamsPerConnectionMax,
  "grpc-node.max_session_memory": sessionMemoryMb,
  // Off by default in the library: a peer that is paused or cut off would stay for ever.
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  // No maximum age of connections: a session lives in one, and a ping after a graceful GOAWAY cuts its streams (grpc/grpc-node#3068).
};

export interface ListenerOptions {
  address: Address;
  /** Absent: plain HTTP/2, which is refused on a public address unless a token guards it. */
  tls?: ServerTls | undefined;
  tokens: TokenSource;
  log: Logger;
  /** Longest time that calls in flight are waited for; default 5 s. */
  graceMs?: number | undefined;
  /** Adds the services; called at each start with the fresh server. */
  services: (listener: Listener) => void;
}

export interface Listener extends Service {
  /** Where it listens, port 0 resolved. Throws before the start. */
  readonly address: Address;
  /** Aborts when it drains. */
  readonly draining: AbortSignal;
  /** The running server, for methods that come and go (`register`, `unregister`). Throws before the start. */
  readonly server: Server;
  /** Adds a service; undecodable requests are refused for it. */
  addService<T extends UntypedServiceImplementation>(definition: ServiceDefinition<T>, implementation: T): void;
  /** Refuses new calls from now on. Safe to repeat. */
  drain(): void;
}

/**
 * Makes a listener.
 * @throws Error on a public address without tokens and client certificates, whatever the configuration said before.
 */
export function createListener(options: ListenerOptions): Listener {
  const { address, tls, tokens, log } = options;
  if (!isLoopback(address.host) && tokens.tokens.length === 0 && !tls?.clientCa) {
    throw new Error(`${formatAddress(address)} can be reached from other machines, and nothing guards it`);
  }
  // The library's own lines are not JSON, and what they say comes back as errors.
  setLogVerbosity(logVerbosity.NONE);
  const authenticator = createAuthenticator(createTokenCheck(tokens), tls?.clientCa !== undefined);
  let server: Server | undefined;
  let bound: Address | undefined;
  let draining = drainController();

  const service = createService("grpc listener", {
    async start() {
      draining = drainController();
      server = new Server({
        ...limits,
        interceptors: [createGuard({ authenticator, draining: draining.signal })],
      });
      options.services(listener);
      try {
        const port = await bind(server, formatAddress(address), serverCredentials(tls));
        bound = { host: address.host, port };
      } catch (error) {
        server.forceShutdown();
        server = undefined;
        throw new Error(`can't listen on ${formatAddress(address)}: ${(error as Error).message}`, { cause: error });
      }
      log.info({ address: formatAddress(bound), tls: tls !== undefined, auth: authenticator.required }, "serving gRPC");
    },
    async stop() {
      draining.abort();
      const stopping = server;
      if (stopping) await shutdown(stopping, options.graceMs ?? graceMsDefault);
      server = undefined;
      bound = undefined;
    },
  });

  const listener: Listener = {
    name: service.name,
    start: service.start,
    stop: service.stop,
    get running() {
      return service.running;
    },
    get address() {
      if (!bound) throw new Error("the listener is not running");
      return bound;
    },
    get draining() {
      return draining.signal;
    },
    get server() {
      if (!server) throw new Error("the listener is not running");
      return server;
    },
    addService(definition, implementation) {
      this.server.addService(withSafeDecoding(definition) as ServiceDefinition, implementation);
    },
    drain: () => draining.abort(),
  };
  return listener;
}

/** Every stream of the coordinator listens to it, and that is no leak. */
function drainController(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}

function bind(server: Server, target: string, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(target, credentials, (error, port) => (error ? reject(error) : resolve(port)));
  });
}

function serverCredentials(tls: ServerTls | undefined): ServerCredentials {
  if (!tls) return ServerCredentials.createInsecure();
  const pair = { cert_chain: Buffer.from(tls.cert), private_key: Buffer.from(tls.key) };
  const clientCa = tls.clientCa ? Buffer.from(tls.clientCa) : null;
  return ServerCredentials.createSsl(clientCa, [pair], clientCa !== null);
}

function shutdown(server: Server, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      server.forceShutdown();
      resolve();
    }, graceMs);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
