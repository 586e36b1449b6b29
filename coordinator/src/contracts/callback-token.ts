/**
 * Tokens of callback steps. A token names its run and proves to be of one step: it is made with the run's secret, so nothing is stored for
 * it, it can be handed out before the step waits, and whoever has one can't make that of another step.
 */
import { createHmac, timingSafeEqual } from "node:crypto";

/** Bits of the proof, in bytes: as hard to guess as a key. */
const proofBytes = 16;

const form = /^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.([A-Za-z0-9_-]{22})$/;

/** The token of a run's callback step. */
export const callbackToken = (runId: string, secret: string, stepId: string): string =>
  `${runId}.${proof(secret, stepId)}`;

/** The run that a token names, as far as its form tells. */
export function readCallbackToken(
  token: string,
): { runId: string; isOf(secret: string, stepId: string): boolean } | undefined {
  const [, runId, given] = form.exec(token) ?? [];
  if (runId === undefined || given === undefined) return undefined;
  // As text: the last character of 22 has bits that decoding drops, so two texts could be one proof.
  const bytes = Buffer.from(given);
  return { runId, isOf: (secret, stepId) => timingSafeEqual(bytes, Buffer.from(proof(secret, stepId))) };
}

const proof = (secret: string, stepId: string): string =>
  createHmac("sha256", secret).update(stepId).digest().toString("base64url", 0, proofBytes);

/** Where a token's holder posts to, below the gateway's address. */
export const callbackPath = (token: string): string => `/api/v1/callbacks/${token}`;
