/** Starts a run and follows it as far as the command was asked to. */
import { finishRun, waitForResult } from "./result.js";
import type { Session } from "./session.js";
import { watchRun } from "./watch.js";

/** Posts the request; shows progress and result (`watch`), the result alone (`wait`), or the id of the run and how to follow it. */
export async function beginRun(
  session: Session,
  bodyText: string,
  { watch, wait }: { watch?: true | undefined; wait?: true | undefined },
): Promise<void> {
  const { api, out } = session;
  const answer = await api.call("POST", "/api/v1/runs", { bodyText });
  const runId = String(answer.runId ?? "");
  if (watch) {
    await watchRun(session, runId);
    await finishRun(session, runId, { named: true });
  } else if (wait) {
    await waitForResult(session, runId);
    await finishRun(session, runId);
  } else {
    out.document(answer);
    out.line(runId);
    if (!out.json && out.terminal.live) out.note(`Follow it with: taskmesh runs watch ${runId}`);
  }
}
