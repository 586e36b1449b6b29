import { CompleteStep, type Failure, LogLevel, StartStep } from "@taskmesh/proto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeCompleteStep, encodeStartStep } from "./step-messages.js";

const bytes = fc.uint8Array({ maxLength: 400 }).map((value) => Buffer.from(value));
const uint = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const text = fc.string({ maxLength: 200, unit: "grapheme" });
const payload = fc.record({
  contract: text,
  keyId: text,
  sizeBytes: fc.bigInt({ min: 0n, max: 2n ** 40n }),
  sha256: bytes,
  data: fc.oneof(
    fc.constant(undefined),
    fc.record({ $case: fc.constant("inline" as const), value: bytes }),
    fc.record({ $case: fc.constant("reference" as const), value: text }),
  ),
});
const large = fc.constant({
  contract: "c",
  keyId: "",
  sizeBytes: 20_000n,
  sha256: Buffer.alloc(32, 1),
  data: { $case: "inline" as const, value: Buffer.alloc(20_000, 7) },
});
const failure = fc.record({
  reason: text,
  message: text,
  retryable: fc.boolean(),
  details: fc.constant<Failure["details"]>([]),
  cause: fc.constant(undefined),
});

describe("step messages", () => {
  it("encodes starts like the generated code", () => {
    const start = fc.record({
      namespaceId: uint,
      runId: text,
      stepId: text,
      item: uint,
      attempt: uint,
      lease: text,
      method: text,
      input: fc.oneof(payload, large, fc.constant(undefined)),
      reportTo: text,
      startToCloseMs: uint,
      heartbeatTimeoutMs: uint,
      runRemainingMs: fc.bigInt({ min: 0n, max: 2n ** 52n }),
      exclusive: fc.boolean(),
      checkpoint: fc.oneof(payload, fc.constant(undefined)),
      runMethod: text,
    });
    fc.assert(
      fc.property(start, (message) => {
        expect(encodeStartStep(message).equals(StartStep.encode(message).finish())).toBe(true);
      }),
    );
  });

  it("encodes completions like the generated code", () => {
    const line = fc.record({
      at: fc.constant({ seconds: 5n, nanos: 7 }),
      level: fc.constant(LogLevel.LOG_LEVEL_INFO),
      message: text,
      fieldsJson: text,
    });
    const completion = fc.record({
      runId: text,
      stepId: text,
      item: uint,
      attempt: uint,
      lease: text,
      outcome: fc.oneof(
        fc.constant(undefined),
        fc.record({ $case: fc.constant("output" as const), value: fc.oneof(payload, large) }),
        fc.record({ $case: fc.constant("failure" as const), value: failure }),
        fc.record({ $case: fc.constant("cancelled" as const), value: fc.record({ message: text }) }),
      ),
      executionMs: uint,
      logs: fc.array(line, { maxLength: 3 }),
      sessionId: text,
      checkpoint: fc.option(fc.record({ typeUrl: text, value: fc.uint8Array().map((b) => Buffer.from(b)) }), {
        nil: undefined,
      }),
    });
    fc.assert(
      fc.property(completion, (message) => {
        expect(encodeCompleteStep(message).equals(CompleteStep.encode(message).finish())).toBe(true);
      }),
    );
  });
});
