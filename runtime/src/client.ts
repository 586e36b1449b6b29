/**
 * Clients of the mesh's own gRPC services: one way to dial (addresses, token, TLS) and one way to call.
 *
 * Several addresses are coordinators, which are equal: calls go round them, and one that dies is left out until it is back.
 */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import {
  type CallOptions,
  ChannelCredentials,
  type ChannelOptions,
  type ClientUnaryCall,
  credentials,
  experimental,
  InterceptingCall,
  type Interceptor,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { type Address, formatAddress } from "./setting-kinds.js";
import { fromServiceError, type StatusError, statusError } from "./status.js";

/** What is needed to dial. */
export interface ChannelConfig {
  addresses: readonly Address[];
  /** Bearer token. */
  token?: string | undefined;
  /** PEM texts; present: TLS. `ca`: default the system's. */
  tls?: { ca?: string; cert?: string; key?: string } | undefined;
}

/** What the constructor of a generated client takes. */
export interface Channel {
  target: string;
  credentials: ChannelCredentials;
  options: ChannelOptions & { interceptors?: Interceptor[] };
}

/** Deadline of a unary call that names none. */
export const callDeadlineMsDefault = 30_000;
/** Answers may hold a whole run with its payloads, so more than gRPC's 4 MiB must fit. */
const receiveBytesMax = 64 * 1024 * 1024;

/**
 * Target, credentials and options of a channel. `streams`: for long streams; calls then keep no buffer for automatic retries, which
 * would grow with each message.
 */
export function createChannel(config: ChannelConfig, use: { streams?: boolean } = {}): Channel {
  const options: Channel["options"] = {
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.max_receive_message_length": receiveBytesMax,
    // A coordinator that comes back is to be used within seconds, not after the library's two minutes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc-node.flow_control_window": 1024 * 1024,
    "grpc.service_config_disable_resolution": 1,
    "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
    ...(use.streams ? { "grpc.enable_retries": 0 } : {}),
    ...(config.token ? { interceptors: [bearer(config.token)] } : {}),
  };
  return { target: targetOf(config.addresses), credentials: channelCredentials(config), options };
}

/** Makes a generated client: `createClient(RunServiceClient, config)`. Close it when it is no longer needed. */
export function createClient<T>(
  Client: new (target: string, credentials: ChannelCredentials, options: ChannelOptions) => T,
  config: ChannelConfig,
  use: { streams?: boolean; options?: ChannelOptions } = {},
): T {
  const channel = createChannel(config, use);
  return new Client(channel.target, channel.credentials, { ...channel.options, ...use.options });
}

function channelCredentials({ tls }: ChannelConfig): ChannelCredentials {
  if (!tls) return credentials.createInsecure();
  const pem = (text: string | undefined): Buffer | null => (text ? Buffer.from(text) : null);
  return ChannelCredentials.createSsl(pem(tls.ca), pem(tls.key), pem(tls.cert));
}

/** An interceptor, not call credentials: those are refused on plain connections, which loopback may use. */
function bearer(token: string): Interceptor {
  const value = `Bearer ${token}`;
  return (options, nextCall) =>
    new InterceptingCall(nextCall(options), {
      start(metadata, listener, next) {
        if (metadata.get("authorization").length === 0) metadata.set("authorization", value);
        next(metadata, listener);
      },
    });
}

export interface UnaryOptions {
  /** Milliseconds until the call is given up; default 30 s. */
  deadlineMs?: number | undefined;
  metadata?: Metadata | undefined;
  /** Aborting it gives the call up. */
  signal?: AbortSignal | undefined;
}

/** The last overload of a unary method of a generated client. */
export type UnaryMethod<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall;

/**
 * Calls a unary method: `await unaryCall(client, client.getRun, { namespace, runId })`.
 * @throws StatusError, whatever went wrong.
 */
export function unaryCall<Request, Response>(
  client: object,
  method: UnaryMethod<Request, Response>,
  request: Request,
  options: UnaryOptions = {},
): Promise<Response> {
  const { signal } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(givenUp(signal));
      return;
    }
    const deadline = Date.now() + (options.deadlineMs ?? callDeadlineMsDefault);
    const metadata = options.metadata ?? new Metadata();
    const call = method.call(client, request, metadata, { deadline }, (error, response) => {
      signal?.removeEventListener("abort", cancel);
      if (!error) resolve(response);
      else reject(signal?.aborted && error.code === status.CANCELLED ? givenUp(signal) : fromServiceError(error));
    });
    const cancel = (): void => call.cancel();
    signal?.addEventListener("abort", cancel, { once: true });
  });
}

function givenUp(signal: AbortSignal): StatusError {
  return statusError({ reason: "CALL_CANCELLED", message: "the call was given up", cause: signal.reason });
}

const scheme = "taskmesh";

function targetOf(addresses: readonly Address[]): string {
  const [first, ...others] = addresses;
  if (!first) throw new Error("no address to dial");
  registerAddressList();
  return others.length === 0 ? formatAddress(first) : `${scheme}:${addresses.map(formatAddress).join(",")}`;
}

let registered = false;

/** gRPC's own targets name one host or several IP addresses; this one names several hosts. */
function registerAddressList(): void {
  if (registered) return;
  registered = true;
  experimental.registerResolver(scheme, AddressListResolver);
}

type Listener = ConstructorParameters<Parameters<typeof experimental.registerResolver>[1]>[1];

/** Shortest time between two answers to the balancer: a coordinator that comes back is found this late at most. */
const lookUpEveryMs = 500;

class AddressListResolver implements experimental.Resolver {
  readonly #addresses: { host: string; port: number }[];
  readonly #listener: Listener;
  #generation = 0;
  #lookingUp = false;
  #lookedUpAt = Number.NEGATIVE_INFINITY;
  #again: NodeJS.Timeout | undefined;

  constructor(target: experimental.GrpcUri, listener: Listener) {
    this.#listener = listener;
    this.#addresses = target.path.split(",").flatMap((part) => {
      const { host, port } = experimental.splitHostPort(part) ?? {};
      return host && port ? [{ host, port }] : [];
    });
  }

  /** With several certificates behind one target, each must carry the first name. */
  static getDefaultAuthority(target: experimental.GrpcUri): string {
    return target.path.split(",")[0] ?? "";
  }

  /**
   * The balancer asks again whenever no address can be reached. Answering at once would make it try and ask for ever without a pause
   * (seen: a client at full CPU whose memory grew without bound), so answers are `lookUpEveryMs` apart.
   */
  updateResolution(): void {
    if (this.#lookingUp || this.#again) return;
    const waitMs = this.#lookedUpAt + lookUpEveryMs - performance.now();
    if (waitMs > 0) {
      this.#again = setTimeout(() => {
        this.#again = undefined;
        this.updateResolution();
      }, waitMs);
      this.#again.unref();
      return;
    }
    this.#lookingUp = true;
    this.#lookedUpAt = performance.now();
    const generation = ++this.#generation;
    void Promise.all(this.#addresses.map(resolveAddress)).then((found) => {
      this.#lookingUp = false;
      if (generation !== this.#generation) return;
      const endpoints = found.flatMap((address) => (address ? [{ addresses: [address] }] : []));
      const result: experimental.StatusOr<experimental.Endpoint[]> =
        endpoints.length > 0
          ? experimental.statusOrFromValue(endpoints)
          : experimental.statusOrFromError({ code: status.UNAVAILABLE, details: "no address can be resolved" });
      this.#listener(result, {}, null, "");
    });
  }

  destroy(): void {
    this.#generation += 1;
    this.#lookingUp = false;
    clearTimeout(this.#again);
    this.#again = undefined;
  }
}

async function resolveAddress(address: Address): Promise<Address | undefined> {
  if (isIP(address.host)) return address;
  try {
    // IPv4 first: `localhost` is both on most machines, and servers bind 127.0.0.1.
    const { address: host } = await lookup(address.host, { verbatim: false });
    return { host, port: address.port };
  } catch {
    return undefined;
  }
}
