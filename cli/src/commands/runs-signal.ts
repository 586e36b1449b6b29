import { randomUUID } from "node:crypto";
import { Command } from "@commander-js/extra-typings";
import { readJsonInput } from "../json-input.js";
import { openSession } from "../session.js";

/** One long poll; the mesh allows at most 60 s. */
const waitMs = 30_000;

/** `taskmesh runs signal`: sends a run a message that one of its steps waits for, or will. */
export const runsSignal = () =>
  new Command("signal")
    .description("send a run a signal that one of its steps waits for, or will")
    .argument("<run-id>")
    .argument("<name>", "of the signal, as the chain's step gives it")
    .option("-i, --input <json>", "the message as JSON; @file reads a file, - reads stdin", "{}")
    .option("--id <text>", "sending again with one id changes nothing")
    .option("--wait", "wait for what the chain answers, and print that alone")
    .action(async (runId, name, options, command) => {
      const { api, out } = openSession(command);
      // One id over all polls: each of them is the same signal.
      const id = options.id ?? (options.wait ? randomUUID() : undefined);
      const about = {
        name,
        ...(id === undefined ? {} : { id }),
        ...(options.wait ? { wait: `${waitMs / 1000}s` } : {}),
      };
      const bodyText = `${JSON.stringify(about).slice(0, -1)},"value":${readJsonInput(options.input)}}`;
      const path = `/api/v1/runs/${encodeURIComponent(runId)}/signals`;
      let answer = await api.call("POST", path, { bodyText, ...(options.wait ? { waitMs } : {}) });
      while (options.wait && answer.answer === undefined) answer = await api.call("POST", path, { bodyText, waitMs });
      if (options.wait) {
        out.document(answer.answer);
        out.line(JSON.stringify(answer.answer, null, out.terminal.live ? 2 : 0));
        return;
      }
      out.document(answer);
      if (answer.existing === true) out.line(`${name} was sent before with this id`);
      else out.line(answer.delivered === true ? `a step took ${name}` : `${name} is kept until a step waits for it`);
    });
