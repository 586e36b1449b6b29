import { Command } from "@commander-js/extra-typings";
import { beginRun } from "../begin-run.js";
import { readChain } from "../chain-module.js";
import { usageError } from "../exit.js";
import { readJsonInput } from "../json-input.js";
import { parseDuration, parsePairs } from "../options.js";
import { openSession } from "../session.js";

/** The mesh's own chain by which it launches. */
const launchMethod = "taskmesh.launch.v1.Launches/Launch";

interface Named {
  action?: string | undefined;
  chain?: string | undefined;
  file?: string | undefined;
}

/** What is to be launched, as fields of a LaunchRequest. */
async function launched({ action, chain, file }: Named): Promise<object> {
  if ([action, chain, file].filter((one) => one !== undefined).length !== 1)
    throw usageError("name one thing to launch: --action, --chain or --file");
  if (file !== undefined) return { spec: (await readChain(file)).spec };
  return action === undefined ? { chain } : { action };
}

/** `taskmesh runs launch`: starts what it names by the mesh's own chain, so that the launch is a run too; also a chain that is stored nowhere. */
export const runsLaunch = () =>
  new Command("launch")
    .description("run an action, a chain or a chain's file by the mesh's launch chain")
    .option("--action <method>", "full method name of an action")
    .option("--chain <method>", "full method name of a chain")
    .option(
      "--file <path>",
      "a chain in YAML, JSON or TypeScript (chain.ts#name) that is run without being stored by its name",
    )
    .option("-i, --input <json>", "the input message as JSON; @file reads a file, - reads stdin", "{}")
    .option("-w, --watch", "show progress until the launch ends, then its result")
    .option("--wait", "wait for the end and print the result alone")
    .option("--detached", "the launch ends as soon as the run is accepted")
    .option("-l, --label <key=value>", "label of what is run; may be repeated", parsePairs, {})
    .option("--timeout <duration>", "time until what is run expires, such as 90s, 15m or 2h", parseDuration)
    .action(async (options, command) => {
      const session = openSession(command);
      const request = {
        ...(await launched(options)),
        labels: options.label,
        ...(options.timeout === undefined ? {} : { timeout: options.timeout }),
        ...(options.detached ? { detached: true } : {}),
      };
      const input = readJsonInput(options.input);
      const bodyText = `{"method":"${launchMethod}","input":${JSON.stringify(request).slice(0, -1)},"input":${input}}}`;
      await beginRun(session, bodyText, options);
    });
