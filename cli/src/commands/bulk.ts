/** Operations over many runs: all that a filter is for. */
import { randomUUID } from "node:crypto";
import { Command } from "@commander-js/extra-typings";
import { usageError } from "../exit.js";
import { type JsonObject, object, objects, text } from "../json.js";
import { readJson } from "../json-input.js";
import { parseInstant, parsePairs, parsePriority, parseStatuses } from "../options.js";
import { type Output, plain } from "../output.js";
import { openSession } from "../session.js";
import { showAgo } from "../show.js";
import { asked } from "./runs-operate.js";
import { versionOf } from "./runs-successors.js";

/** `taskmesh runs broken`: what broke how many runs. */
export const runsBroken = () =>
  new Command("broken")
    .description("count the broken runs by what broke them")
    .option("--by-starter", "also by who started them")
    .action(async ({ byStarter = false }, command) => {
      const { api, out } = openSession(command);
      const answer = await api.call("GET", "/api/v1/broken", byStarter ? { query: { byStarter: "true" } } : {});
      out.document(answer);
      if (out.json) return;
      const groups = objects(answer.groups);
      if (groups.length === 0) return out.note("No run is broken.");
      const now = Date.now();
      out.table(
        ["RUNS", "REASON", "ACTION", "CHAIN", ...(byStarter ? ["STARTER"] : []), "OLDEST"],
        groups.map(({ count, reason, action, method, starter, oldest }) => [
          text(count),
          plain(text(reason)),
          plain(text(action)),
          plain(text(method)),
          ...(byStarter ? [plain(text(starter))] : []),
          showAgo(oldest, now),
        ]),
      );
    });

const kinds = ["pause", "resume", "cancel", "terminate", "retry", "update", "skip", "restart"];

/** `taskmesh bulk start`: does one thing to every run that the options choose. */
export const bulkStart = () =>
  new Command("start")
    .description("do one thing to every run that is chosen; at least one choice must be made")
    .argument("<what>", kinds.join(", "))
    .option("-s, --status <status>", "only these; may be repeated or separated by commas", parseStatuses, [])
    .option("-m, --method <method>", "only runs of this action or chain")
    .option("-l, --label <key=value>", "only runs with all of these labels; may be repeated", parsePairs, {})
    .option("--since <instant>", "accepted after: an instant, or a length before now such as 15m", parseInstant)
    .option("--until <instant>", "accepted before, written like --since", parseInstant)
    .option("--broken-reason <reason>", "only what broke for this reason")
    .option("--broken-action <method>", "only what broke in a step that calls this")
    .option("--starter <name>", "only what this one has started")
    .option("--step <id>", "retry, skip: this broken step; restart: the first that is done anew")
    .option("--value <json>", "retry: the input of the step; skip: its output; @file reads a file, - reads stdin")
    .option("--newest", "restart: with the version of the chain that new runs have")
    .option("--priority <number>", "update: -100 to 100, higher is sooner", parsePriority)
    .option("--set-label <key=value>", "update: set a label; may be repeated", parsePairs, {})
    .option(
      "--remove-label <key>",
      "update: remove a label; may be repeated",
      (key, all: string[]) => [...all, key],
      [],
    )
    .option("-r, --reason <text>", "why, for the runs' histories")
    .option("--actor <name>", "who asks; default: this system's user")
    .action(async (what, options, command) => {
      if (!kinds.includes(what)) throw usageError(`there is no ${plain(what)}: ${kinds.join(", ")}`);
      const { api, out } = openSession(command);
      const { status, method, label, since, until, brokenReason, brokenAction, priority, setLabel, removeLabel } =
        options;
      const { step, starter } = options;
      const filter = {
        statuses: status,
        labels: label,
        ...(method === undefined ? {} : { method }),
        ...(since === undefined ? {} : { acceptedAfter: since }),
        ...(until === undefined ? {} : { acceptedBefore: until }),
        ...(brokenReason === undefined ? {} : { brokenReason }),
        ...(brokenAction === undefined ? {} : { brokenAction }),
        ...(starter === undefined ? {} : { starter }),
      };
      const body = {
        // With an id of its own, a request whose answer was lost can be sent again without a second operation.
        operationId: randomUUID(),
        kind: `BULK_KIND_${what.toUpperCase()}`,
        filter,
        ...asked(options),
        ...(priority === undefined ? {} : { priority }),
        setLabels: setLabel,
        removeLabels: removeLabel,
        ...(step === undefined ? {} : { stepId: step }),
        ...versionOf(options),
      };
      const given = options.value;
      const value =
        given === undefined ? undefined : readJson("value", given, "Quote it for the shell, or use @file.json.");
      const plainBody = JSON.stringify(body);
      const bodyText = value === undefined ? plainBody : `${plainBody.slice(0, -1)},"value":${value}}`;
      const answer = await api.call("POST", "/api/v1/operations", { bodyText });
      out.document(answer);
      if (!out.json) out.line(text(object(answer.operation).operationId));
    });

/** `taskmesh bulk show`: how far an operation is. */
export const bulkShow = () =>
  new Command("show")
    .description("show how far an operation is")
    .argument("<operation-id>")
    .action(async (operationId, _options, command) => {
      const { api, out } = openSession(command);
      const answer = await api.call("GET", `/api/v1/operations/${encodeURIComponent(operationId)}`);
      out.document(answer);
      if (!out.json) showOperation(out, object(answer.operation));
    });

function showOperation(out: Output, operation: JsonObject): void {
  const { kind, changed, unchanged, failed, lastFailure, endedAt } = operation;
  const state = text(endedAt) === "" ? "under way" : "done";
  const counts = `${Number(changed ?? 0)} changed, ${Number(unchanged ?? 0)} unchanged, ${Number(failed ?? 0)} failed`;
  out.line(`${text(kind).replace("BULK_KIND_", "").toLowerCase()}: ${state}; ${counts}`);
  if (text(lastFailure) !== "") out.line(plain(text(lastFailure)));
}
