import { Command } from "@commander-js/extra-typings";
import { finishRun, waitForResult } from "../result.js";
import { openSession } from "../session.js";

/** `taskmesh runs result`: the output on stdout; the exit code says how the run ended. */
export const runsResult = () =>
  new Command("result")
    .description("print the output of a run that succeeded")
    .argument("<run-id>")
    .option("--wait", "wait for the end")
    .action(async (runId, options, command) => {
      const session = openSession(command);
      if (options.wait) await waitForResult(session, runId);
      await finishRun(session, runId);
    });
