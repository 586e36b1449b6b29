import { Command } from "@commander-js/extra-typings";
import { beginRun } from "../begin-run.js";
import { usageError } from "../exit.js";
import { readJson, readJsonInput } from "../json-input.js";
import { parseConflict, parseDuration, parseFutureInstant, parsePairs, parsePriority, parseReuse } from "../options.js";
import { openSession } from "../session.js";

/** `taskmesh runs start`: starts a run of any action or chain, and follows it where asked to. */
export const runsStart = () =>
  new Command("start")
    .description("start a run of an action or a chain")
    .argument("<method>", "full method name, acme.pages.v1.Pages/Check")
    .option("-i, --input <json>", "the input message as JSON; @file reads a file, - reads stdin", "{}")
    .option("-w, --watch", "show progress until the run ends, then its result")
    .option("--wait", "wait for the end and print the result alone")
    .option("--idempotency-key <key>", "starting again with one key and equal input gives the first run")
    .option("--id <id>", "an id of your choice: at most one run that has not ended has it")
    .option(
      "--id-conflict <what>",
      "while a run has the id: fail (default), use-existing, terminate-existing",
      parseConflict,
    )
    .option("--id-reuse <what>", "when that run has ended: allow (default), allow-if-failed, reject", parseReuse)
    .option("--starter <name>", "who starts it; default: this system's user")
    .option("-l, --label <key=value>", "label of the run; may be repeated", parsePairs, {})
    .option("--timeout <duration>", "time until the run expires, such as 90s, 15m or 2h", parseDuration)
    .option("--start-at <instant>", "start nothing of it before, 2026-01-31T12:00:00Z", parseFutureInstant)
    .option("--priority <number>", "-100 to 100, higher is sooner", parsePriority)
    .option(
      "--signal <name>",
      "a first signal, accepted with the run; of a run that has the key or id already: sent to that",
    )
    .option("--signal-input <json>", "its message as JSON; @file reads a file, - reads stdin")
    .option("--signal-id <text>", "sending it again with one id changes nothing")
    .action(async (method, options, command) => {
      const session = openSession(command);
      const input = readJsonInput(options.input);
      const settings = {
        method,
        labels: options.label,
        ...(options.idempotencyKey === undefined ? {} : { idempotencyKey: options.idempotencyKey }),
        ...(options.id === undefined ? {} : { customId: options.id }),
        ...(options.idConflict === undefined ? {} : { idConflict: options.idConflict }),
        ...(options.idReuse === undefined ? {} : { idReuse: options.idReuse }),
        starter: options.starter ?? process.env["USER"] ?? "",
        ...(options.timeout === undefined ? {} : { timeout: options.timeout }),
        ...(options.startAt === undefined ? {} : { startAt: options.startAt }),
        ...(options.priority === undefined ? {} : { priority: options.priority }),
      };
      const signal = firstSignal(options);
      const bodyText = `${JSON.stringify(settings).slice(0, -1)}${signal},"input":${input}}`;
      await beginRun(session, bodyText, options);
    });

/** The signal of the options as a further member of the request, its message as it is written; "" without one. */
function firstSignal({
  signal: name,
  signalInput,
  signalId: id,
}: {
  signal?: string | undefined;
  signalInput?: string | undefined;
  signalId?: string | undefined;
}): string {
  if (name === undefined) {
    if (signalInput === undefined && id === undefined) return "";
    throw usageError(
      "--signal-input and --signal-id need the signal's name",
      "taskmesh runs start <method> --signal <name> ...",
    );
  }
  const hint = "Quote it for the shell, or use @file.json.";
  const value = signalInput === undefined ? "{}" : readJson("signal's message", signalInput, hint);
  const about = JSON.stringify({ name, ...(id === undefined ? {} : { id }) });
  return `,"signal":${about.slice(0, -1)},"value":${value}}`;
}
