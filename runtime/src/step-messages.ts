/**
 * StartStep and CompleteStep as bytes: what the generated encoders write, for a fraction of their cost (step-messages.test.ts holds them
 * equal). One of each is written for every step of every run.
 */
import { Any, Cancelled, type CompleteStep, Failure, LogLine, type Payload, type StartStep } from "@taskmesh/proto";
import { WireWriter } from "./wire-writer.js";

const writer = new WireWriter();

/** An encoded taskmesh.v1.StartStep. */
export function encodeStartStep(start: StartStep): Buffer {
  writer.reset();
  writer.uint(1, start.namespaceId);
  writer.string(2, start.runId);
  writer.string(3, start.stepId);
  writer.uint(4, start.item);
  writer.uint(5, start.attempt);
  writer.string(6, start.lease);
  writer.string(7, start.method);
  const { input, checkpoint } = start;
  if (input) writer.message(8, () => writePayload(writer, input));
  writer.string(9, start.reportTo);
  writer.uint(10, start.startToCloseMs);
  writer.uint(11, start.heartbeatTimeoutMs);
  writer.uint(12, Number(start.runRemainingMs));
  writer.uint(13, start.exclusive ? 1 : 0);
  if (checkpoint) writer.message(14, () => writePayload(writer, checkpoint));
  writer.string(15, start.runMethod);
  return writer.copy();
}

/** An encoded taskmesh.v1.CompleteStep. */
export function encodeCompleteStep(completion: CompleteStep): Buffer {
  writer.reset();
  writer.string(1, completion.runId);
  writer.string(2, completion.stepId);
  writer.uint(3, completion.item);
  writer.uint(4, completion.attempt);
  writer.string(5, completion.lease);
  const { outcome } = completion;
  if (outcome?.$case === "output") {
    const { value } = outcome;
    writer.message(6, () => writePayload(writer, value));
  } else if (outcome?.$case === "failure") writer.bytes(7, Failure.encode(outcome.value).finish(), true);
  else if (outcome?.$case === "cancelled") writer.bytes(8, Cancelled.encode(outcome.value).finish(), true);
  writer.uint(9, completion.executionMs);
  for (const line of completion.logs) writer.bytes(10, LogLine.encode(line).finish(), true);
  writer.string(11, completion.sessionId);
  const { checkpoint } = completion;
  if (checkpoint) writer.bytes(50, Any.encode(checkpoint).finish(), true);
  return writer.copy();
}

/** The fields of a taskmesh.v1.Payload. */
function writePayload(to: WireWriter, payload: Payload): void {
  to.string(1, payload.contract);
  to.string(2, payload.keyId);
  to.uint(3, Number(payload.sizeBytes));
  to.bytes(4, payload.sha256);
  const { data } = payload;
  if (data?.$case === "inline") to.bytes(5, data.value, true);
  else if (data?.$case === "reference") to.bytes(6, Buffer.from(data.value), true);
}
