/** How a run ended, and what that means for the command that asked. */
import { CliError, exitCode } from "./exit.js";
import { type JsonObject, object, text } from "./json.js";
import type { Session } from "./session.js";
import { bareStatus, isFinal, showFailure } from "./show.js";

/** One long poll; the mesh allows at most 60 s. */
const waitMs = 30_000;

const resultPath = (runId: string): string => `/api/v1/runs/${encodeURIComponent(runId)}/result`;

/** Waits until the run has ended, is broken or has answered its caller, and returns the answer of the result call. */
export async function waitForResult({ api }: Session, runId: string): Promise<JsonObject> {
  for (;;) {
    const answer = await api.call("GET", resultPath(runId), { query: { wait: `${waitMs / 1000}s` }, waitMs });
    const status = text(answer.status);
    if (isFinal(status) || bareStatus(status) === "BROKEN" || answer.output !== undefined) return answer;
  }
}

/**
 * Prints the result of a run that has ended, or has answered its caller: its output on stdout, a failure on stderr. `named`: says which run it is
 * about.
 * @throws CliError (bad) when the run did not succeed; (refused) when it has not ended.
 */
export async function finishRun({ api, out }: Session, runId: string, { named = false } = {}): Promise<void> {
  const answer = await api.call("GET", resultPath(runId));
  const status = bareStatus(answer.status);
  if (status === "SUCCEEDED" || (!isFinal(status) && answer.output !== undefined)) {
    out.document(named ? { runId, ...answer } : (answer.output ?? {}));
    out.line(JSON.stringify(answer.output ?? {}, null, out.terminal.live ? 2 : 0));
    return;
  }
  const document = { runId, ...answer };
  if (!isFinal(status) && status !== "BROKEN") {
    throw new CliError(exitCode.refused, `run ${runId} has not ended, it is ${status}`, {
      hint: `Wait for it with: taskmesh runs result ${runId} --wait`,
      problem: document,
    });
  }
  const failure = showFailure(object(answer.failure));
  throw new CliError(exitCode.bad, `run ${runId} ended ${status}${failure === "" ? "" : `: ${failure}`}`, {
    hint: `See each step with: taskmesh runs show ${runId}`,
    problem: document,
  });
}
