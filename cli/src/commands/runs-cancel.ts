import { Command } from "@commander-js/extra-typings";
import { object } from "../json.js";
import { openSession } from "../session.js";
import { bareStatus } from "../show.js";

/** `taskmesh runs cancel`: asks a run to stop. */
export const runsCancel = () =>
  new Command("cancel")
    .description("ask a run to stop; nothing new of it is dispatched afterwards")
    .argument("<run-id>")
    .option("-r, --reason <text>", "why, for the run's history")
    .action(async (runId, options, command) => {
      const { api, out } = openSession(command);
      const body = options.reason === undefined ? {} : { reason: options.reason };
      const answer = await api.call("POST", `/api/v1/runs/${encodeURIComponent(runId)}/cancel`, { body });
      out.document(answer);
      const status = bareStatus(object(answer.run ?? answer).status);
      out.line(status === "CANCELLED" ? `${runId} is CANCELLED` : `${runId} is asked to stop (now ${status})`);
    });
