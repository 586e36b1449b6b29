import { Command } from "@commander-js/extra-typings";
import { readJsonInput } from "../json-input.js";
import { openSession } from "../session.js";

/** `taskmesh runs signal`: sends a run a message that one of its steps waits for, or will. */
export const runsSignal = () =>
  new Command("signal")
    .description("send a run a signal that one of its steps waits for, or will")
    .argument("<run-id>")
    .argument("<name>", "of the signal, as the chain's step gives it")
    .option("-i, --input <json>", "the message as JSON; @file reads a file, - reads stdin", "{}")
    .option("--id <text>", "sending again with one id changes nothing")
    .action(async (runId, name, options, command) => {
      const { api, out } = openSession(command);
      const about = { name, ...(options.id === undefined ? {} : { id: options.id }) };
      const bodyText = `${JSON.stringify(about).slice(0, -1)},"value":${readJsonInput(options.input)}}`;
      const answer = await api.call("POST", `/api/v1/runs/${encodeURIComponent(runId)}/signals`, { bodyText });
      out.document(answer);
      if (answer.existing === true) out.line(`${name} was sent before with this id`);
      else out.line(answer.delivered === true ? `a step took ${name}` : `${name} is kept until a step waits for it`);
    });
