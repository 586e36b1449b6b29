/** What every command that talks to a mesh starts from: the API, and the output, as its options say. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { type Api, createApi } from "./api.js";
import { type GlobalOptions, resolveConnection, terminalFacts } from "./config.js";
import { createOutput, type Output } from "./output.js";

export interface Session {
  api: Api;
  out: Output;
}

/** The output that the command's options ask for. */
export const openOutput = (command: CommandUnknownOpts): Output =>
  createOutput((command.optsWithGlobals() as GlobalOptions).json === true, terminalFacts());

/** API and output of a command. @throws CliError (usage) when the connection's options can't be used. */
export function openSession(command: CommandUnknownOpts): Session {
  const options = command.optsWithGlobals() as GlobalOptions;
  return { api: createApi(resolveConnection(options)), out: openOutput(command) };
}
