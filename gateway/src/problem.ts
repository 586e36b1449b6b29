/**
 * Errors as RFC 9457 problem documents. Every refusal and failure leaves the gateway in this one form.
 *
 * `reason` is what programs act on (docs/errors.md); `detail` is for people; `errors` names the fields of an invalid request;
 * `details` are the typed messages of the status as canonical protobuf JSON.
 */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { httpStatusOf, type Reason, reasons, type StatusError, statusError } from "@taskmesh/runtime";
import type { FastifyReply } from "fastify";
import { anyToJson } from "./render.js";

/** A problem document. */
export interface Problem extends JsonObject {
  /** `urn:taskmesh:error:<reason>`: stable, the same for every occurrence. */
  type: string;
  title: string;
  status: number;
  detail: string;
  reason: string;
}

/** Media type of problem documents. */
export const problemMediaType = "application/problem+json; charset=utf-8";

/** The problem document of a status. */
export function problemOf(error: StatusError): Problem {
  const problem: Problem = {
    type: `urn:taskmesh:error:${error.reason}`,
    title: titleOf(error.reason),
    status: httpStatusOf(error),
    detail: error.message,
    reason: error.reason,
  };
  if (error.fieldViolations.length > 0) {
    problem["errors"] = error.fieldViolations.map(({ field, description, reason }) => ({
      field,
      message: description,
      ...(reason === undefined ? {} : { reason }),
    }));
  }
  if (Object.keys(error.metadata).length > 0) problem["metadata"] = { ...error.metadata };
  if (error.retryAfterMs !== undefined) problem["retryAfterMs"] = Math.round(error.retryAfterMs);
  const details: JsonValue[] = error.details.map((any) => anyToJson(any));
  if (details.length > 0) problem["details"] = details;
  return problem;
}

function titleOf(reason: string): string {
  return (
    (reasons as Record<string, { meaning: string } | undefined>)[reason]?.meaning ?? "The request did not succeed."
  );
}

/** An error that fastify raises before a handler runs, as a status; undefined for errors that are not fastify's. */
export function fromFastifyError(error: unknown): StatusError | undefined {
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string") return undefined;
  const known = fastifyErrors[error.code];
  if (known !== undefined) return statusError({ ...known, cause: error });
  const status = "statusCode" in error && typeof error.statusCode === "number" ? error.statusCode : 500;
  if (!error.code.startsWith("FST_") || status >= 500) return undefined;
  return statusError({ reason: "ARGUMENT_INVALID", message: error.message, cause: error });
}

const fastifyErrors: Readonly<Record<string, { reason: Reason; message: string }>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: { reason: "PAYLOAD_TOO_LARGE", message: "the body is larger than this route takes" },
  FST_ERR_CTP_INVALID_MEDIA_TYPE: {
    reason: "CONTENT_TYPE_UNSUPPORTED",
    message: "the body must be JSON, sent with `Content-Type: application/json`",
  },
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: {
    reason: "ARGUMENT_INVALID",
    message: "the length of the body differs from its Content-Length",
  },
  FST_ERR_MAX_PARAM_LENGTH: { reason: "ROUTE_NOT_FOUND", message: "no name is as long as the one in the path" },
  FST_ERR_BAD_URL: { reason: "ARGUMENT_INVALID", message: "the path of the URL is not valid" },
};

/** Answers with a problem document. */
export function sendProblem(reply: FastifyReply, problem: Problem): FastifyReply {
  const document: Problem = {
    ...problem,
    instance: reply.request.url.split("?", 1)[0]!.slice(0, INSTANCE_LENGTH_MAX),
    requestId: reply.request.id,
  };
  if (typeof problem["retryAfterMs"] === "number") {
    reply.header("retry-after", String(Math.max(1, Math.ceil(problem["retryAfterMs"] / 1_000))));
  }
  if (problem.status === 401) reply.header("www-authenticate", 'Bearer realm="taskmesh"');
  return reply.code(problem.status).header("content-type", problemMediaType).send(JSON.stringify(document));
}

const INSTANCE_LENGTH_MAX = 256;
