/** The few REST calls that the demo makes, in plain fetch: what any program would write. */

export interface Result {
  status: string;
  output?: { words?: number; minutes?: number; digest?: string };
  failure?: { reason: string; message: string };
}

export interface RunTimes {
  acceptedAt: string;
  endedAt: string;
  /** Attempts of each step, by id. */
  attempts: Record<string, number>;
}

/** Longest that one call may take; a waiting one waits half of it. */
const callTimeoutMs = 60_000;
const waitSeconds = 30;

async function call(url: string, init: RequestInit = {}): Promise<Record<string, unknown>> {
  const response = await fetch(url, { ...init, signal: AbortSignal.timeout(callTimeoutMs) });
  const body = (await response.json()) as Record<string, unknown>;
  if (!response.ok) throw new Error(`${init.method ?? "GET"} ${url}: ${response.status} ${String(body.detail)}`);
  return body;
}

/** Whether the mesh answers and is ready. */
export async function isReady(origin: string): Promise<boolean> {
  try {
    return (await fetch(`${origin}/readyz`, { signal: AbortSignal.timeout(2_000) })).ok;
  } catch {
    return false;
  }
}

/** Whether a live worker serves the action. */
export async function isServed(origin: string, method: string): Promise<boolean> {
  const { actions } = await call(`${origin}/api/v1/actions`);
  return ((actions ?? []) as { method: string; servable?: boolean }[]).some(
    (action) => action.method === method && action.servable === true,
  );
}

/** Starts a run; the key makes a repeated start the same run. */
export async function startRun(
  origin: string,
  method: string,
  input: unknown,
  idempotencyKey: string,
): Promise<string> {
  const body = JSON.stringify({ method, input, idempotencyKey, labels: { demo: "pages" } });
  const headers = { "content-type": "application/json" };
  return String((await call(`${origin}/api/v1/runs`, { method: "POST", headers, body })).runId);
}

/** Waits for the end of a run. */
export async function waitForEnd(origin: string, runId: string): Promise<Result> {
  for (;;) {
    const result = await call(`${origin}/api/v1/runs/${runId}/result?wait=${waitSeconds}s`);
    if (/SUCCEEDED|FAILED|CANCELLED|EXPIRED|BROKEN/.test(String(result.status))) return result as unknown as Result;
  }
}

/** When a run was accepted and ended, and how often each of its steps was tried. */
export async function timesOf(origin: string, runId: string): Promise<RunTimes> {
  const answer = await call(`${origin}/api/v1/runs/${runId}?omitPayloads=true`);
  const run = (answer.run ?? answer) as { acceptedAt: string; endedAt: string };
  const steps = (answer.steps ?? []) as { stepId: string; attempt?: number }[];
  return { ...run, attempts: Object.fromEntries(steps.map((step) => [step.stepId, step.attempt ?? 0])) };
}
