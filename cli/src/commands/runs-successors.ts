/** Runs that are made from others: restarts and clones. */
import { Command, Option } from "@commander-js/extra-typings";
import { readJson } from "../json-input.js";
import { openSession, type Session } from "../session.js";
import { type AskedOptions, asked, whoOption, whyOption } from "./runs-operate.js";

const newest = "use the version of the chain that new runs have; default: the one that the run is pinned to";

/** The version of the chain that the new run is to have, as the mesh takes it. */
export const versionOf = (options: { newest?: boolean | undefined }) =>
  options.newest ? { version: "RUN_VERSION_NEWEST" } : {};

/** The option by which a repeated command finds the run that the first one made. */
const idempotencyKey = new Option("--idempotency-key <key>", "the same again with one key gives the first new run");

async function make(
  { api, out }: Session,
  path: string,
  bodyText: string,
  headers: Record<string, string> = {},
): Promise<void> {
  const answer = await api.call("POST", path, { bodyText, headers });
  out.document(answer);
  out.line(String(answer.runId ?? ""));
}

const pathOf = (runId: string, verb: string): string => `/api/v1/runs/${encodeURIComponent(runId)}/${verb}`;

/** `taskmesh runs restart`: a new run goes on from a step of one that is broken or has ended. */
export const runsRestart = () =>
  new Command("restart")
    .description("go on from a step of a run that is broken or has ended, in a new run; earlier results are kept")
    .argument("<run-id>")
    .argument("[step]", "it and all behind it are done anew; default: everything is")
    .option("--newest", newest)
    .addOption(idempotencyKey)
    .addOption(whyOption())
    .addOption(whoOption())
    .action(async (runId, step, options, command) => {
      const verb = step === undefined ? "restart" : `steps/${encodeURIComponent(step)}/restart`;
      const body = JSON.stringify({ ...asked(options as AskedOptions), ...versionOf(options) });
      const key = options.idempotencyKey;
      await make(openSession(command), pathOf(runId, verb), body, key === undefined ? {} : { "idempotency-key": key });
    });

/** `taskmesh runs clone`: a copy of a run, which it cancels. */
export const runsClone = () =>
  new Command("clone")
    .description("start a copy of a run, with its input or another, and cancel the run in the same moment")
    .argument("<run-id>")
    .option("-i, --input <json>", "use this input; @file reads a file, - reads stdin")
    .option("--terminate", "end the run at once, without clean-up and compensation")
    .option("--newest", newest)
    .addOption(whyOption())
    .addOption(whoOption())
    .action(async (runId, options, command) => {
      const about = { ...asked(options as AskedOptions), ...versionOf(options), terminate: options.terminate === true };
      const text = JSON.stringify(about);
      const hint = "Quote it for the shell, or use @file.json.";
      const input = options.input === undefined ? undefined : readJson("input", options.input, hint);
      const body = input === undefined ? text : `${text.slice(0, -1)},"input":${input}}`;
      await make(openSession(command), pathOf(runId, "clone"), body);
    });
