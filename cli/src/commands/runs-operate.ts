/** What people do to a run beside cancelling it. Each asks for why and by whom, for the run's history. */
import { Command, Option } from "@commander-js/extra-typings";
import { usageError } from "../exit.js";
import { object } from "../json.js";
import { readJson } from "../json-input.js";
import { parsePairs, parsePriority } from "../options.js";
import { openSession, type Session } from "../session.js";
import { bareStatus } from "../show.js";

const why = "why, for the history";
const who = "who asks, for the history; default: this system's user";

/** Why, as an option. */
export const whyOption = () => new Option("-r, --reason <text>", why);

/** Who asks, as an option. */
export const whoOption = () => new Option("--actor <name>", who);

/** Options that every operation has. */
export interface AskedOptions {
  reason?: string | undefined;
  actor?: string | undefined;
}

/** Who and why, as the mesh takes them. */
export const asked = ({ reason, actor }: AskedOptions) => ({
  ...(reason === undefined ? {} : { reason }),
  actor: actor ?? process.env["USER"] ?? "",
});

/** `message`: the JSON text of a message, kept as it is written so that no large number is rounded on the way. */
async function operate(
  { api, out }: Session,
  runId: string,
  verb: string,
  body: Record<string, unknown>,
  message?: { name: string; text: string },
): Promise<void> {
  const text = JSON.stringify(body);
  const bodyText = message === undefined ? text : `${text.slice(0, -1)},"${message.name}":${message.text}}`;
  const path = `/api/v1/runs/${encodeURIComponent(runId)}/${verb}`;
  const answer = await api.call("POST", path, { bodyText });
  out.document(answer);
  out.line(`${runId} is ${bareStatus(object(answer.run).status)}`);
}

const simple = (verb: "pause" | "resume" | "terminate", about: string) =>
  new Command(verb)
    .description(about)
    .argument("<run-id>")
    .option("-r, --reason <text>", why)
    .option("--actor <name>", who)
    .action(async (runId, options, command) => operate(openSession(command), runId, verb, asked(options)));

/** `taskmesh runs pause`: nothing new of the run starts. */
export const runsPause = () => simple("pause", "hold a run: nothing new starts, what runs ends, its deadline goes on");

/** `taskmesh runs resume`: a paused run goes on. */
export const runsResume = () => simple("resume", "let a paused run go on");

/** `taskmesh runs terminate`: ends a run at once. */
export const runsTerminate = () => simple("terminate", "end a run at once, without clean-up and compensation");

/** `taskmesh runs update`: priority and labels. */
export const runsUpdate = () =>
  new Command("update")
    .description("change the priority or the labels of a run that has not ended")
    .argument("<run-id>")
    .option("--priority <number>", "-100 to 100, higher is sooner", parsePriority)
    .option("-l, --label <key=value>", "set a label; may be repeated", parsePairs, {})
    .option("--remove-label <key>", "remove a label; may be repeated", (key, before: string[]) => [...before, key], [])
    .option("-r, --reason <text>", why)
    .option("--actor <name>", who)
    .action(async (runId, options, command) =>
      operate(openSession(command), runId, "update", {
        ...asked(options),
        ...(options.priority === undefined ? {} : { priority: options.priority }),
        setLabels: options.label,
        removeLabels: options.removeLabel,
      }),
    );

/** `taskmesh runs retry`: new attempts for the steps that broke a run. */
export const runsRetry = () =>
  new Command("retry")
    .description("give the steps that broke a run new attempts")
    .argument("<run-id>")
    .argument("[step]", "one broken step; default: all of them")
    .option("-i, --input <json>", "use this input for the step; @file reads a file, - reads stdin")
    .option("-r, --reason <text>", why)
    .option("--actor <name>", who)
    .action(async (runId, step, options, command) => {
      if (options.input !== undefined && step === undefined)
        throw usageError("--input needs the step that it is for", "taskmesh runs retry <run-id> <step> --input ...");
      const verb = step === undefined ? "retry" : `steps/${encodeURIComponent(step)}/retry`;
      const input = options.input === undefined ? undefined : readMessage("input", options.input);
      await operate(openSession(command), runId, verb, asked(options), input);
    });

/** `taskmesh runs skip`: a broken step counts as done. */
export const runsSkip = () =>
  new Command("skip")
    .description("count a step that broke a run as done")
    .argument("<run-id>")
    .argument("<step>")
    .option("-o, --output <json>", "what it would have returned; @file reads a file, - reads stdin")
    .option("-r, --reason <text>", why)
    .option("--actor <name>", who)
    .action(async (runId, step, options, command) => {
      const output = options.output === undefined ? undefined : readMessage("output", options.output);
      const verb = `steps/${encodeURIComponent(step)}/skip`;
      await operate(openSession(command), runId, verb, asked(options), output);
    });

/** A message given as JSON: literal, from a file ("@path"), or from stdin ("-"). */
const readMessage = (name: string, given: string): { name: string; text: string } => ({
  name,
  text: readJson(name, given, "Quote it for the shell, or use @file.json."),
});
