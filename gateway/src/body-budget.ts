/** Bounds the memory that request bodies take together: large ones wait for each other by being refused for a moment. */

import { statusError } from "@taskmesh/runtime";
import type { FastifyReply, FastifyRequest } from "fastify";
import { PAYLOAD_BYTES_MAX } from "./payloads.js";

/** Bodies in memory at once; each is there about three times while it is read. */
const TOTAL_BYTES_MAX = 256 * 1024 * 1024;
/** Bodies below are too small to count. */
const FREE_BYTES = 256 * 1024;
const RETRY_AFTER_MS = 1_000;

export class BodyBudget {
  private used = 0;

  /** Counts a request's body until it is answered. Throws OVERLOADED when there is no room. */
  take(request: FastifyRequest, reply: FastifyReply): void {
    const bytes = announcedBytes(request);
    // What is over every limit is refused for its size, which says more.
    if (bytes <= FREE_BYTES || bytes > PAYLOAD_BYTES_MAX) return;
    if (this.used + bytes > TOTAL_BYTES_MAX) {
      const message = "too many large requests at once";
      throw statusError({ reason: "OVERLOADED", message, retryAfterMs: RETRY_AFTER_MS });
    }
    this.used += bytes;
    reply.raw.once("close", () => {
      this.used -= bytes;
    });
  }
}

/** A body in chunks may become as large as any. */
function announcedBytes(request: FastifyRequest): number {
  if (request.headers["transfer-encoding"] !== undefined) return PAYLOAD_BYTES_MAX;
  return Number(request.headers["content-length"] ?? 0);
}
