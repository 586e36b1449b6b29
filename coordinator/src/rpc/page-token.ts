/** Page tokens: opaque to callers, checked when they come back. */
import { statusError } from "@taskmesh/runtime";

/** The token of the page after `cursor`. */
export const writePageToken = (cursor: string): string => Buffer.from(`1${cursor}`).toString("base64url");

const runId = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** The run id that a token holds. Throws INVALID_ARGUMENT, PAGE_TOKEN_INVALID. */
export function readPageToken(token: string): string {
  const text = Buffer.from(token.slice(0, 128), "base64url").toString("utf8");
  if (text.startsWith("1") && runId.test(text.slice(1))) return text.slice(1);
  throw statusError({
    reason: "PAGE_TOKEN_INVALID",
    message: "page_token is not one that this API gave out; leave it empty for the first page",
    fieldViolations: [{ field: "page_token", description: "is not a token of an earlier answer" }],
  });
}

/** The run and step that a token holds. Throws INVALID_ARGUMENT, PAGE_TOKEN_INVALID. */
export function readStepPageToken(token: string): { runId: string; step: number } {
  const [run = "", step = ""] = Buffer.from(token.slice(0, 128), "base64url").toString("utf8").split("/");
  if (!/^\d{1,4}$/.test(step)) return { runId: readPageToken(""), step: 0 };
  return { runId: readPageToken(Buffer.from(run).toString("base64url")), step: Number(step) };
}
