import { Command } from "@commander-js/extra-typings";
import { finishRun } from "../result.js";
import { openSession } from "../session.js";
import { watchRun } from "../watch.js";

/** `taskmesh runs watch`: progress until the run ends; the exit code says how it ended. */
export const runsWatch = () =>
  new Command("watch")
    .description(
      "show the progress of a run until it ends (--json: one event a line or report of progress a line, then the result)",
    )
    .argument("<run-id>")
    .action(async (runId, _options, command) => {
      const session = openSession(command);
      await watchRun(session, runId);
      await finishRun(session, runId, { named: true });
    });
