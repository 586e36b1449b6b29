/** Signals to runs, and the answers that their senders wait for. */
import { randomUUID } from "node:crypto";
import type { JsonObject } from "@bufbuild/protobuf";
import { RunServiceService, Signal, type SignalRunResponse } from "@taskmesh/proto";
import { decodeBody } from "./body.js";
import type { GatewayContext } from "./context.js";
import { payloadToJson, readPayload } from "./payloads.js";
import { invalid } from "./query.js";
import { type JsonInput, sliceOf } from "./start.js";
import type { CallOptions } from "./upstream.js";

/** A signal in a request, `{"name", "id", "value"}`; `field`: where it stands, "" for the whole body. Throws ARGUMENT_INVALID. */
export function readSignal({ value: body, lossyIntegers }: JsonInput, field: string): Signal {
  const within = (name: string): string => (field === "" ? name : `${field}.${name}`);
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw invalid(field, 'expected an object such as {"name": "decided", "id": "…", "value": {}}');
  }
  const { value = {}, ...rest } = body;
  for (const name of ["payload", "json"]) {
    if (Object.hasOwn(rest, name)) throw invalid(within(name), 'the message goes into "value", as JSON');
  }
  const [lossy] = lossyIntegers;
  if (lossy !== undefined)
    throw invalid(within(lossy.join(".")), "JSON would round this integer; write it as a string");
  const settings = decodeBody("Signal", Signal, rest, ["value"]);
  if (settings.name === "") throw invalid(within("name"), "the signal needs the name that the chain's step gives it");
  // With an id of its own, a signal whose answer was lost can be sent again at another coordinator without a second one.
  const id = settings.id === "" ? `gateway-${randomUUID()}` : settings.id;
  return { ...settings, id, value: { $case: "json", value: JSON.stringify(value) } };
}

/**
 * Sends a signal, and waits up to `waitMs` for what the chain answers. The wait is made of calls with one id, any of which another coordinator
 * may answer: a repeated signal is the same signal.
 */
export async function sendSignal(
  context: GatewayContext,
  about: { namespace: string; runId: string; signal: Signal },
  waitMs: number,
  options: CallOptions,
): Promise<JsonObject> {
  const { upstream, stopping } = context;
  const untilMs = performance.now() + waitMs;
  const ask = (leftMs: number): Promise<SignalRunResponse> => {
    const { wait, times } = sliceOf(Math.max(1, leftMs));
    const waiting = waitMs > 0;
    const command = { ...about, wait: waiting ? wait : undefined };
    return upstream.call(RunServiceService.signalRun, command, waiting ? { ...options, ...times } : options);
  };
  const first = await ask(waitMs);
  let { answer } = first;
  for (let leftMs = untilMs - performance.now(); !answer && leftMs > 0; leftMs = untilMs - performance.now()) {
    if (stopping.aborted) break;
    ({ answer } = await ask(leftMs));
  }
  const { delivered, existing, id } = first;
  const json: JsonObject = { delivered, existing, ...(waitMs > 0 ? { id } : {}) };
  if (answer === undefined) return json;
  const contract = await context.contracts.revision(about.namespace, answer.contract, options);
  const bytes = await readPayload(upstream, about.namespace, answer, options);
  return { ...json, answer: payloadToJson(contract, "output", bytes, false) };
}
