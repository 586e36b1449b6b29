/**
 * A coordinator's door with a window in it: the worker dials the tap, the tap dials a real coordinator, and everything that passes is
 * recorded, checked, and can be withheld, changed or broken off.
 *
 *   worker ──► tap ──► coordinator
 *          ◄──     ◄──
 *
 * T1. Without faults the tap changes nothing: each message is passed on in its order, each stream ends on both sides as it ended on one.
 * T2. A break looks to the worker like a lost connection (UNAVAILABLE), and to the coordinator like a worker that vanished (cancelled).
 * T3. What the tap injects never reaches the coordinator: neither acks and credits of injected starts, nor their completions.
 */
import {
  type ClientDuplexStream,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerWritableStream,
  type ServiceDefinition,
  type ServiceError,
  type sendUnaryData,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import {
  type BeatReply,
  type ClaimAttemptRequest,
  type ClaimAttemptResponse,
  type ConnectRequest,
  type ConnectResponse,
  type GetPayloadRequest,
  type GetPayloadResponse,
  PayloadServiceClient,
  PayloadServiceService,
  type PutPayloadRequest,
  type PutPayloadResponse,
  type Register,
  RegistryServiceClient,
  RegistryServiceService,
  type RelayCompletions,
  type RelayCredit,
  type RelayRequest,
  type RelayResponse,
  RelayServiceClient,
  RelayServiceService,
  type RelayStart,
  StartStep,
} from "@taskmesh/proto";
import { type Address, createClient } from "@taskmesh/runtime";
import { Tape } from "./tape.js";
import { Watch } from "./watch.js";

/** What may go wrong on the way. Each absent: nothing does. */
export interface Faults {
  /** Whether a registration reaches the coordinator; false: UNAVAILABLE. */
  register?: (message: Register) => boolean;
  /** The reply that the worker gets; undefined: none. */
  reply?: (reply: BeatReply) => BeatReply | undefined;
  /** Whether a start reaches the worker. */
  start?: (start: RelayStart) => boolean;
  /** What becomes of a message of completions: passed on, swallowed, or answered with an error. */
  completions?: (message: RelayCompletions) => "pass" | "swallow" | { error: string };
  /** Whether the worker hears that a message is stored. */
  stored?: (message: { number: bigint; leases: readonly string[] }) => boolean;
  /** Whether an ack reaches the coordinator. */
  ack?: (delivery: bigint) => boolean;
}

type ConnectCall = ServerDuplexStream<ConnectRequest, ConnectResponse | Buffer>;
type RelayCall = ServerDuplexStream<RelayRequest, RelayResponse | Buffer>;
type PutCall = ServerReadableStream<PutPayloadRequest, PutPayloadResponse>;
type GetCall = ServerWritableStream<GetPayloadRequest, GetPayloadResponse>;

/** A worker's half-close and a break look alike at first: the library tells of the break a moment later. */
const breakTellMs = 50;
/** Delivery numbers of injected starts, far above real ones. */
const injectedFrom = 1n << 40n;

interface OpenStream {
  number: number;
  call: ConnectCall | RelayCall;
  cut(): void;
}

export class Tap {
  readonly tape = new Tape();
  readonly watch = new Watch(this.tape);
  faults: Faults = {};
  readonly #server = new Server({ "grpc.max_receive_message_length": 8 << 20 });
  readonly #registry: RegistryServiceClient;
  readonly #relay: RelayServiceClient;
  readonly #payloads: PayloadServiceClient;
  readonly #open = { connect: new Set<OpenStream>(), relay: new Set<OpenStream>() };
  readonly #injected = new Map<bigint, StartStep>();
  #streams = { connect: 0, relay: 0 };
  #nextInjected = injectedFrom;
  #port = 0;

  constructor(coordinator: Address) {
    const channel = { addresses: [coordinator] };
    this.#registry = createClient(RegistryServiceClient, channel, { streams: true });
    this.#relay = createClient(RelayServiceClient, channel, { streams: true });
    this.#payloads = createClient(PayloadServiceClient, channel, { streams: true });
  }

  async listen(): Promise<this> {
    this.#server.addService(withRawAnswers(RegistryServiceService), {
      ...refusing(RegistryServiceService),
      connect: (call: ConnectCall) => this.#connect(call),
      claimAttempt: (call: { request: ClaimAttemptRequest }, callback: sendUnaryData<ClaimAttemptResponse>) =>
        this.#claim(call.request, callback),
    });
    this.#server.addService(withRawAnswers(RelayServiceService), { relay: (call: RelayCall) => this.#carry(call) });
    this.#server.addService(PayloadServiceService, {
      putPayload: (call: PutCall, callback: sendUnaryData<PutPayloadResponse>) => this.#put(call, callback),
      getPayload: (call: GetCall) => this.#get(call),
    });
    this.#port = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
        error ? reject(error) : resolve(port),
      );
    });
    return this;
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Number of the relay stream that is open now; 0: none. */
  get relayStream(): number {
    return Math.max(0, ...[...this.#open.relay].map(({ number }) => number));
  }

  get connectStream(): number {
    return Math.max(0, ...[...this.#open.connect].map(({ number }) => number));
  }

  /** Breaks the streams of a kind off (T2). */
  cut(kind: "connect" | "relay"): void {
    for (const stream of this.#open[kind]) stream.cut();
  }

  /** Sends a message of the relay to the worker, or bytes as they are. */
  inject(message: RelayResponse | Buffer): void {
    for (const { call } of this.#open.relay) (call as RelayCall).write(message);
  }

  /** Sends a message of the session to the worker, or bytes as they are. */
  injectReply(message: ConnectResponse | Buffer): void {
    for (const { call } of this.#open.connect) (call as ConnectCall).write(message);
  }

  /** Sends a start that no coordinator knows of, once there is credit for it. Returns its delivery number. */
  injectStart(taskQueue: string, start: StartStep): bigint {
    const delivery = this.#nextInjected++;
    this.#injected.set(delivery, start);
    const relayed: RelayStart = { taskQueue, delivery, start, redelivered: false, headers: {} };
    this.tape.add(this.tape.starts, this.relayStream, relayed);
    this.watch.start(this.relayStream, relayed);
    this.inject({ message: { $case: "starts", value: { starts: [relayed] } } });
    return delivery;
  }

  close(): void {
    this.cut("relay");
    this.cut("connect");
    this.#server.forceShutdown();
    for (const client of [this.#registry, this.#relay, this.#payloads]) client.close();
  }

  #track<Request, Response>(
    kind: "connect" | "relay",
    call: ServerDuplexStream<Request, Response | Buffer>,
    up: ClientDuplexStream<Request, Response>,
  ): OpenStream {
    this.#streams[kind] += 1;
    const number = this.#streams[kind];
    let over = false;
    const finish = (how?: "closed" | "cancelled"): void => {
      if (over) return;
      over = true;
      this.#open[kind].delete(stream);
      if (how) this.tape.ends.push({ order: this.tape.next(), stream: number, kind, how });
    };
    const stream: OpenStream = {
      number,
      call: call as ConnectCall | RelayCall,
      cut: () => {
        finish();
        up.cancel();
        call.emit("error", { code: status.UNAVAILABLE, details: "the connection broke" });
      },
    };
    this.#open[kind].add(stream);
    call.on("error", () => {});
    call.on("end", () => {
      setTimeout(() => {
        if (over || call.cancelled) return;
        this.tape.ends.push({ order: this.tape.next(), stream: number, kind, how: "closed" });
        up.end();
      }, breakTellMs);
    });
    call.on("cancelled", () => {
      finish("cancelled");
      up.cancel();
    });
    up.on("error", (error: ServiceError) => {
      if (over) return;
      finish();
      call.emit("error", { code: error.code, details: error.details, metadata: error.metadata });
    });
    up.on("end", () => {
      if (over) return;
      finish();
      call.end();
    });
    return stream;
  }

  #connect(call: ConnectCall): void {
    const up = this.#registry.connect();
    const stream = this.#track("connect", call, up);
    const { tape, watch } = this;
    let first = true;
    let slots: ReadonlyMap<string, number> = new Map();
    call.on("data", (request: ConnectRequest) => {
      const { message } = request;
      if (first !== (message?.$case === "register"))
        watch.broken("3", first ? "the first message of Connect is not Register" : "Register came twice on one stream");
      first = false;
      if (message?.$case === "register") {
        slots = new Map(message.value.queues.map((queue) => [queue.taskQueue, queue.slots]));
        tape.add(tape.registers, stream.number, message.value);
        if (this.faults.register && !this.faults.register(message.value)) return stream.cut();
      } else if (message?.$case === "beat") {
        tape.add(tape.beats, stream.number, message.value);
        watch.beat(message.value);
      } else watch.broken("3", "a message of Connect is neither Register nor Beat");
      up.write(request);
    });
    up.on("data", (response: ConnectResponse) => {
      const { message } = response;
      if (message?.$case === "registered") {
        tape.add(tape.registered, stream.number, message.value);
        watch.registered(message.value.sessionId, slots);
      }
      if (message?.$case !== "beatReply") return void call.write(response);
      const reply = this.faults.reply ? this.faults.reply(message.value) : message.value;
      if (!reply) return;
      tape.add(tape.replies, stream.number, reply);
      call.write({ message: { $case: "beatReply", value: reply } });
    });
  }

  #carry(call: RelayCall): void {
    const up = this.#relay.relay();
    const stream = this.#track("relay", call, up);
    const { number } = stream;
    this.watch.opened(number);
    const leases = new Map<bigint, string[]>();
    let first = true;
    call.on("data", (request: RelayRequest) => {
      if (first !== (request.message?.$case === "open"))
        this.watch.broken("5.1", first ? "the first message of Relay is not RelayOpen" : "RelayOpen came twice");
      first = false;
      const passed = this.#fromWorker(request, stream, leases);
      if (passed) up.write(passed);
    });
    up.on("data", (response: RelayResponse) => this.#toWorker(response, stream, leases));
  }

  /** What of a worker's message goes on to the coordinator; undefined: nothing. */
  #fromWorker(
    request: RelayRequest,
    { number, call }: OpenStream,
    leases: Map<bigint, string[]>,
  ): RelayRequest | undefined {
    const { tape, watch } = this;
    const { message } = request;
    switch (message?.$case) {
      case "open":
        tape.add(tape.opens, number, message.value);
        return request;
      case "drain":
        tape.add(tape.relayDrains, number, null);
        return request;
      case "credit":
        tape.add(tape.credits, number, message.value);
        watch.credit(number, message.value);
        return { message: { $case: "credit", value: this.#realCredit(message.value) } };
      case "ack": {
        for (const delivery of message.value.deliveries) {
          tape.add(tape.acks, number, delivery);
          watch.ack(number, delivery);
        }
        const deliveries = message.value.deliveries.filter(
          (delivery) => !this.#injected.has(delivery) && (this.faults.ack?.(delivery) ?? true),
        );
        return deliveries.length > 0 ? { message: { $case: "ack", value: { deliveries } } } : undefined;
      }
      case "completions": {
        const { value } = message;
        const completions = value.batch?.completions ?? [];
        for (const one of completions) {
          const at = { order: tape.next(), stream: number, message: one };
          tape.completions.push({ ...at, number: value.number, reportTo: value.reportTo });
        }
        watch.completions(number, value);
        leases.set(
          value.number,
          completions.map(({ lease }) => lease),
        );
        const answer = (error: string): void => {
          if (error === "") for (const { lease } of completions) tape.add(tape.stored, number, lease);
          watch.answered(number, value.number);
          (call as RelayCall).write({ message: { $case: "stored", value: { number: value.number, error } } });
        };
        const injected = new Set([...this.#injected.values()].map(({ lease }) => lease));
        if (completions.some(({ lease }) => injected.has(lease))) answer("");
        else {
          const fate = this.faults.completions?.(value) ?? "pass";
          if (fate === "pass") return request;
          if (fate !== "swallow") answer(fate.error);
        }
        return undefined;
      }
      case "emitted":
        return request;
      case undefined:
        watch.broken("5", "a message of Relay is empty");
        return undefined;
    }
  }

  #toWorker({ message }: RelayResponse, { number, call }: OpenStream, leases: Map<bigint, string[]>): void {
    const { tape, watch } = this;
    if (message?.$case === "starts") {
      const starts = message.value.starts.filter((start) => this.faults.start?.(start) ?? true);
      for (const start of starts) {
        tape.add(tape.starts, number, start);
        watch.start(number, start);
      }
      if (starts.length === 0) return;
      (call as RelayCall).write({ message: { $case: "starts", value: { starts } } });
      return;
    }
    if (message?.$case === "probe") tape.add(tape.probes, number, message.value.nonce);
    if (message?.$case === "stored") {
      const { number: pack, error } = message.value;
      const stored = leases.get(pack) ?? [];
      if (!(this.faults.stored?.({ number: pack, leases: stored }) ?? true)) return;
      if (error === "") for (const lease of stored) tape.add(tape.stored, number, lease);
      watch.answered(number, pack);
    }
    (call as RelayCall).write({ message });
  }

  /** A credit without what belongs to injected starts (T3). */
  #realCredit(credit: RelayCredit): RelayCredit {
    const own = credit.deliveries.filter((delivery) => this.#injected.has(delivery));
    const bytes = own.reduce((sum, id) => sum + StartStep.encode(this.#injected.get(id)!).finish().length, 0);
    return {
      ...credit,
      slots: Math.max(0, credit.slots - own.length),
      bytes: credit.bytes > BigInt(bytes) ? credit.bytes - BigInt(bytes) : 0n,
      deliveries: credit.deliveries.filter((delivery) => !this.#injected.has(delivery)),
    };
  }

  #claim(request: ClaimAttemptRequest, callback: sendUnaryData<ClaimAttemptResponse>): void {
    const { tape } = this;
    const claim: (typeof tape.claims)[number] = { order: tape.next(), stream: 0, message: { request } };
    tape.claims.push(claim);
    this.#registry.claimAttempt(request, (error, response) => {
      if (response) claim.message.response = response;
      callback(error, response);
    });
  }

  #put(call: PutCall, callback: sendUnaryData<PutPayloadResponse>): void {
    const put: Tape["puts"][number] = { order: this.tape.next(), chunks: [], namespace: "" };
    this.tape.puts.push(put);
    const up = this.#payloads.putPayload((error, response) => callback(error, response));
    call.on("data", (request: PutPayloadRequest) => {
      put.chunks.push(request.chunk.length);
      put.namespace ||= request.namespace;
      up.write(request);
    });
    call.on("end", () => up.end());
    for (const one of [call, up]) one.on("error", () => {});
  }

  #get(call: GetCall): void {
    this.tape.gets.push({ order: this.tape.next(), reference: call.request.reference });
    const up = this.#payloads.getPayload(call.request);
    up.on("data", (response: GetPayloadResponse) => call.write(response));
    up.on("end", () => call.end());
    up.on("error", (error: ServiceError) => call.emit("error", error));
    call.on("cancelled", () => up.cancel());
    call.on("error", () => {});
  }
}

/** A service whose answers may also be bytes that are sent as they are. */
function withRawAnswers(definition: ServiceDefinition): ServiceDefinition {
  const raw = Object.entries(definition).map(([name, method]) => {
    const responseSerialize = (value: unknown): Buffer =>
      Buffer.isBuffer(value) ? value : method.responseSerialize(value as never);
    return [name, { ...method, responseSerialize }];
  });
  return Object.fromEntries(raw) as ServiceDefinition;
}

/** Answers for what a worker does not call. */
function refusing(definition: ServiceDefinition): UntypedServiceImplementation {
  const refuse = (_call: unknown, callback: sendUnaryData<never>): void =>
    callback({ code: status.UNIMPLEMENTED, details: "the conformance kit passes on what workers call" });
  return Object.fromEntries(Object.keys(definition).map((name) => [name, refuse]));
}
