import type { IncomingHttpHeaders } from "node:http2";
import { Metadata } from "@grpc/grpc-js";
import { errorDetails, RunEnded, rpcStatus } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { failureReasons } from "./failure-reasons.js";
import { reasons } from "./reasons.js";
import {
  fromHttpStatus,
  fromServiceError,
  isStatusError,
  type StatusError,
  status,
  statusDetail,
  statusDetailsKey,
  statusError,
  toHttpStatus,
  toRpcStatus,
  toServiceError,
} from "./status.js";

const throughTheWire = (error: unknown): StatusError => {
  const sent = toServiceError(error);
  // What a client sees: code and text in trailers of their own, the details as bytes.
  const metadata = Metadata.fromHttp2Headers(sent.metadata.toHttp2Headers() as IncomingHttpHeaders);
  return fromServiceError(Object.assign(new Error(), { code: sent.code, details: sent.details, metadata }));
};

describe("status", () => {
  it("takes its code from the reason", () => {
    expect(statusError({ reason: "RUN_NOT_FOUND", message: "no such run" }).code).toBe(status.NOT_FOUND);
    expect(statusError({ reason: "RUN_NOT_FOUND", message: "no such run", code: status.ABORTED }).code).toBe(
      status.ABORTED,
    );
  });

  it("comes out of the wire as it went in, typed details included", () => {
    const detail = statusDetail("taskmesh.v1.RunEnded", RunEnded, { runId: "r1", status: "FAILED" });
    const error = throughTheWire(
      statusError({
        reason: "RUN_ENDED",
        message: "the run has ended · Lauf beendet",
        metadata: { run: "r1" },
        retryAfterMs: 2_500,
        fieldViolations: [{ field: "a.b[1]", description: "is wrong" }],
        details: [detail],
      }),
    );
    expect(isStatusError(error)).toBe(true);
    expect(error).toMatchObject({
      code: status.FAILED_PRECONDITION,
      reason: "RUN_ENDED",
      message: "the run has ended · Lauf beendet",
      metadata: { run: "r1" },
      retryAfterMs: 2_500,
      fieldViolations: [{ field: "a.b[1]", description: "is wrong" }],
    });
    expect(error.details).toHaveLength(1);
    expect(error.detail("taskmesh.v1.RunEnded", RunEnded)).toEqual({ runId: "r1", status: "FAILED" });
    expect(error.detail("taskmesh.v1.RunFailed", RunEnded)).toBeUndefined();
  });

  it("says nothing of an error that is not ours, and keeps it as the cause", () => {
    const leak = new Error("password=hunter2 at /srv/app.js:1");
    const sent = toServiceError(leak, "trace-1");
    expect(sent).toMatchObject({ code: status.INTERNAL, details: "internal error, trace id trace-1" });
    expect(JSON.stringify(sent.metadata.toHttp2Headers()) + sent.stack).not.toContain("hunter2");
    expect(fromServiceError(leak)).toMatchObject({ reason: "INTERNAL", cause: leak });
  });

  it("reads statuses of servers that send no details, or garbage", () => {
    const metadata = new Metadata();
    metadata.set(statusDetailsKey, Buffer.from([0xff, 0xff, 0xff]));
    for (const [code, reason] of [
      [status.UNAVAILABLE, "COORDINATOR_UNAVAILABLE"],
      [status.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"],
      [status.NOT_FOUND, "NOT_FOUND"],
    ] as const) {
      const bare = Object.assign(new Error("x"), { code, details: "why", metadata: new Metadata() });
      expect(fromServiceError(bare)).toMatchObject({ code, reason, message: "why" });
      expect(fromServiceError(Object.assign(new Error("x"), { code, details: "why", metadata }))).toMatchObject({
        code,
        reason,
      });
    }
    expect(fromServiceError("thrown text").code).toBe(status.INTERNAL);
    expect(fromServiceError(undefined).code).toBe(status.INTERNAL);
  });

  it("keeps what it can of malformed details", () => {
    const encoded = rpcStatus.Status.encode({
      code: 5,
      message: "m",
      details: [
        { typeUrl: "type.googleapis.com/google.rpc.BadRequest", value: Buffer.from([0x0a, 0xff]) },
        statusDetail("google.rpc.ErrorInfo", errorDetails.ErrorInfo, {
          reason: "RUN_NOT_FOUND",
          domain: "taskmesh",
          metadata: {},
        }),
      ],
    }).finish();
    const metadata = new Metadata();
    metadata.set(statusDetailsKey, Buffer.from(encoded));
    const read = fromServiceError(Object.assign(new Error("m"), { code: 5, details: "m", metadata }));
    expect(read).toMatchObject({ reason: "RUN_NOT_FOUND", fieldViolations: [] });
  });

  it("fits into the header list of any peer, however much it has to say", () => {
    const fieldViolations = Array.from({ length: 500 }, (_, i) => ({
      field: `input.f${i}`,
      description: "x".repeat(100),
    }));
    const sent = toServiceError(
      statusError({ reason: "INPUT_INVALID", message: "é".repeat(100_000), fieldViolations }),
    );
    const bytes = JSON.stringify(sent.metadata.toHttp2Headers()).length + encodeURIComponent(sent.details).length;
    expect(bytes).toBeLessThan(30_000);
    expect(
      throughTheWire(sent.cause ?? statusError({ reason: "INPUT_INVALID", message: "x", fieldViolations })).reason,
    ).toBe("INPUT_INVALID");
  });

  it("has an HTTP status for every code, and back", () => {
    for (const code of Object.values(status)) {
      if (typeof code !== "number") continue;
      expect(toHttpStatus(code)).toBeGreaterThanOrEqual(200);
    }
    for (const code of [
      status.INVALID_ARGUMENT,
      status.UNAUTHENTICATED,
      status.PERMISSION_DENIED,
      status.NOT_FOUND,
      status.RESOURCE_EXHAUSTED,
      status.UNAVAILABLE,
      status.DEADLINE_EXCEEDED,
      status.UNIMPLEMENTED,
    ]) {
      expect(fromHttpStatus(toHttpStatus(code))).toBe(code);
    }
    expect([fromHttpStatus(418), fromHttpStatus(599), fromHttpStatus(204)]).toEqual([
      status.INVALID_ARGUMENT,
      status.INTERNAL,
      status.OK,
    ]);
  });

  it("names every reason in UPPER_SNAKE, with a meaning and a fix that are sentences", () => {
    for (const [name, { code, meaning, fix }] of Object.entries(reasons)) {
      expect(name).toMatch(/^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$/);
      expect(code).not.toBe(status.OK);
      expect(meaning, name).toMatch(/^[A-Z].*\.$/s);
      expect(fix, name).toMatch(/^[A-Z`].*[.`]$/s);
    }
    for (const [name, { meaning }] of Object.entries(failureReasons)) expect(meaning, name).toMatch(/^[A-Z].*\.$/s);
    expect(toRpcStatus(statusError({ reason: "INTERNAL", message: "" })).details).toHaveLength(1);
  });
});
