/**
 * A call of an rpc that returns a stream, answered with the outputs as the handler emits them: server-sent events (`Accept: text/event-stream`) or
 * lines of JSON (`Accept: application/x-ndjson`).
 *
 *   output ... output, end      the last output is the recorded result
 *   output ... problem          the run did not succeed, or the answer was lost on the way
 *
 * It is a durable gRPC call of a coordinator, passed on. A coordinator that goes away is replaced by another, where the same key finds the same run; what was
 * emitted meanwhile is lost to this caller, as outputs may be, and the result is not.
 */
import { toBinary } from "@bufbuild/protobuf";
import type { ClientReadableStream, Metadata } from "@grpc/grpc-js";
import {
  fromServiceError,
  fullJitter,
  isJsonObject,
  messageFromJson,
  type StatusError,
  sleep,
  status,
  statusError,
} from "@taskmesh/runtime";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { GatewayContext } from "../context.js";
import { type Contract, returnsStream } from "../contracts.js";
import { EventStream, type StreamForm } from "../event-stream.js";
import { payloadToJson } from "../payloads.js";
import { problemOf } from "../problem.js";
import { header } from "../query.js";
import { inputInvalid, type JsonInput } from "../start.js";
import { isAway } from "../upstream.js";

/** Streams of outputs that one gateway holds open. */
const STREAMS_MAX = 2_000;
/** How long a call looks for a coordinator that serves it: one that was just started, or does not know the contract yet. */
const PATIENCE_MS = 10_000;
const RETRY = { initialMs: 100, capMs: 1_000 };

/** A call, read and ready to be made. */
export interface StreamedCall {
  namespace: string;
  contract: Contract;
  input: JsonInput;
  idempotencyKey: string;
  /** The field of the output that is the answer; undefined: all of it. */
  answerField: string | undefined;
}

/** How the request wants the outputs of the contract; undefined: it wants the result alone. */
export function streamFormOf(request: FastifyRequest, contract: Contract): StreamForm | undefined {
  if (!returnsStream(contract)) return undefined;
  const accept = header(request, "accept") ?? "";
  if (accept.includes("text/event-stream")) return "events";
  return accept.includes("application/x-ndjson") ? "lines" : undefined;
}

let streams = 0;

/** Makes the call and answers with its outputs. Throws what refuses the call before its run begins. */
export async function streamOutputs(
  context: GatewayContext,
  request: FastifyRequest,
  reply: FastifyReply,
  form: StreamForm,
  call: StreamedCall,
): Promise<FastifyReply> {
  if (streams >= STREAMS_MAX) {
    const message = `the gateway holds its ${STREAMS_MAX} streams of outputs already`;
    throw statusError({ reason: "LIMIT_EXCEEDED", message, retryAfterMs: 5_000 });
  }
  streams++;
  try {
    const outputs = new Outputs(context, request, call);
    const runId = await outputs.open();
    reply.header("taskmesh-run-id", runId);
    const events = new EventStream(reply, context.stopping, form);
    const leave = (): void => outputs.cancel();
    events.closed.addEventListener("abort", leave, { once: true });
    if (events.closed.aborted) leave();
    try {
      for await (const output of outputs.all()) await events.sendNamed("output", answerOf(call, output));
      await events.sendNamed("end", { runId, ...(outputs.missed > 0 ? { missed: outputs.missed } : {}) });
    } catch (error) {
      await events.sendNamed("problem", { ...problemOf(fromServiceError(error)), runId });
    } finally {
      events.closed.removeEventListener("abort", leave);
      events.end();
    }
  } finally {
    streams--;
  }
  return reply;
}

function answerOf({ contract, answerField }: StreamedCall, output: Uint8Array) {
  const json = payloadToJson(contract, "output", output, false);
  if (answerField === undefined) return json;
  return isJsonObject(json) ? (json[answerField] ?? null) : null;
}

const same = (bytes: Buffer): Buffer => bytes;

/** What headers say of the run, for the metadata of the call. */
function saidOfRun(request: FastifyRequest): Record<string, string> {
  const names = ["taskmesh-starter", "taskmesh-custom-id", "taskmesh-id-conflict", "taskmesh-id-reuse"];
  return Object.fromEntries(
    names.flatMap((name) => {
      const said = header(request, name);
      return said === undefined ? [] : [[name, said]];
    }),
  );
}

/** The outputs of one call, from whichever coordinator serves it. */
class Outputs {
  /** Outputs that the coordinator knows to be lost. */
  missed = 0;
  private readonly input: Buffer;
  private readonly headers: Record<string, string>;
  private call: ClientReadableStream<Buffer> | undefined;
  private failed: (error: StatusError) => void = () => {};
  private cancelled = false;

  constructor(
    private readonly context: GatewayContext,
    request: FastifyRequest,
    private readonly asked: StreamedCall,
  ) {
    const { contract, input, namespace, idempotencyKey } = asked;
    const { registry } = contract;
    const parsed = messageFromJson(contract.input, input.value, { registry, lossyIntegers: input.lossyIntegers });
    if (!parsed.ok) throw inputInvalid(parsed.violations, "");
    this.input = Buffer.from(toBinary(contract.input, parsed.message));
    this.headers = {
      ...request.traceHeaders,
      "taskmesh-namespace": namespace,
      "taskmesh-idempotency-key": idempotencyKey,
      ...saidOfRun(request),
    };
    request.clientGone.addEventListener("abort", () => this.cancel(), { once: true });
  }

  /** Makes the call; the id of its run, which is on record then. Rejects with what refuses it. */
  async open(): Promise<string> {
    const giveUpMs = performance.now() + PATIENCE_MS;
    for (let tries = 1; ; tries++) {
      try {
        return await this.openOnce();
      } catch (cause) {
        const error = fromServiceError(cause);
        if (isAway(error)) this.failed(error);
        // UNIMPLEMENTED: a coordinator serves what is registered a moment later.
        const passing = isAway(error) || error.code === status.UNIMPLEMENTED;
        if (!passing || this.cancelled || performance.now() > giveUpMs) throw error;
        await sleep(fullJitter(tries, RETRY), this.context.stopping);
      }
    }
  }

  /** Every output, to the end of the run. Rejects with how it failed. */
  async *all(): AsyncGenerator<Uint8Array, void> {
    for (;;) {
      try {
        for await (const output of this.call as AsyncIterable<Buffer>) yield output;
        return;
      } catch (cause) {
        const error = fromServiceError(cause);
        if (this.cancelled || !isAway(error) || error.reason === "RUN_CANCELLED") throw error;
        this.failed(error);
      }
      await this.open();
    }
  }

  cancel(): void {
    this.cancelled = true;
    this.call?.cancel();
  }

  private openOnce(): Promise<string> {
    const method = { path: `/${this.asked.contract.method}`, requestSerialize: same, responseDeserialize: same };
    const { call, failed } = this.context.upstream.stream(method, this.input, this.headers);
    this.call = call;
    this.failed = failed;
    if (this.cancelled) call.cancel();
    call.on("status", ({ metadata }: { metadata: Metadata }) => {
      this.missed += Number(metadata.get("taskmesh-outputs-missed")[0] ?? 0);
    });
    return new Promise((resolve, reject) => {
      call.once("error", reject);
      call.once("metadata", (initial) => {
        const runId = initial.get("taskmesh-run-id")[0]?.toString();
        if (runId !== undefined) resolve(runId);
      });
    });
  }
}
