import { statusError } from "@taskmesh/runtime";

/**
 * The result of work that asks the carrier. Rejects with UNAVAILABLE / COORDINATOR_UNAVAILABLE after `limitMs`: a carrier that is away
 * must not hold its callers for ever, they come again.
 */
export async function inTime<T>(work: Promise<T>, limitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const message = "the carrier of work can't be reached; try again";
      reject(statusError({ reason: "COORDINATOR_UNAVAILABLE", message, retryAfterMs: 1_000 }));
    }, limitMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
