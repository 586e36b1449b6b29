import { Command } from "@commander-js/extra-typings";
import { usageError } from "../exit.js";
import { readJsonInput } from "../json-input.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";

/** The token of a callback, given alone or as the last part of its URL. @throws CliError (usage) where there is none. */
function tokenOf(given: string): string {
  const token = given.replace(/[?#].*$/, "").replace(/^.*\//, "");
  if (token === "")
    throw usageError(`"${plain(given)}" has no token`, "It is what callback.<step>.token gives, or the whole URL.");
  return token;
}

/** `taskmesh runs callback`: answers a callback in place of the service that has its URL. */
export const runsCallback = () =>
  new Command("callback")
    .description("answer a callback step, as the service would that it gave its URL to")
    .argument("<url-or-token>", "as callback.<step>.url or .token gave it out; it is posted to the mesh of --url")
    .option("-i, --input <json>", "the answer as JSON; @file reads a file, - reads stdin", "{}")
    .action(async (given, options, command) => {
      const { api, out } = openSession(command);
      const bodyText = readJsonInput(options.input);
      out.document(await api.call("POST", `/api/v1/callbacks/${encodeURIComponent(tokenOf(given))}`, { bodyText }));
      out.line("the run has the answer");
    });
