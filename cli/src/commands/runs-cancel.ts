import { Command } from "@commander-js/extra-typings";
import { object } from "../json.js";
import { openSession } from "../session.js";
import { bareStatus } from "../show.js";
import { type AskedOptions, asked, whoOption, whyOption } from "./runs-operate.js";

/** `taskmesh runs cancel`: asks a run to stop. */
export const runsCancel = () =>
  new Command("cancel")
    .description("ask a run to stop; nothing new of it is dispatched afterwards")
    .argument("<run-id>")
    .addOption(whyOption())
    .addOption(whoOption())
    .action(async (runId, options, command) => {
      const { api, out } = openSession(command);
      const body = asked(options as AskedOptions);
      const answer = await api.call("POST", `/api/v1/runs/${encodeURIComponent(runId)}/cancel`, { body });
      out.document(answer);
      const status = bareStatus(object(answer.run ?? answer).status);
      out.line(status === "CANCELLED" ? `${runId} is CANCELLED` : `${runId} is asked to stop (now ${status})`);
    });
