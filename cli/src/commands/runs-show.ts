import { Command } from "@commander-js/extra-typings";
import { type Json, object, objects, text } from "../json.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";
import {
  bareStatus,
  isFinal,
  paintStatus,
  showAgo,
  showBetween,
  showFailure,
  showItems,
  showUntil,
  showValue,
} from "../show.js";

/** `taskmesh runs show`: a run with its steps, attempts and payloads. */
export const runsShow = () =>
  new Command("show")
    .description("show a run with its steps, attempts and payloads")
    .argument("<run-id>")
    .action(async (runId, _options, command) => {
      const { api, out } = openSession(command);
      const answer = await api.call("GET", `/api/v1/runs/${encodeURIComponent(runId)}`);
      out.document(answer);
      if (out.json) return;
      const run = object(answer.run ?? answer);
      const now = Date.now();
      const labels = Object.entries(object(run.labels)).map(([key, value]) => `${key}=${text(value)}`);
      const version = Number(run.chainVersion ?? 0);
      const facts: [string, string][] = [
        ["run", plain(text(run.runId))],
        ["method", plain(`${text(run.method)}${version > 0 ? ` (version ${version})` : ""}`)],
        ["status", paintStatus(run.status, out.colors)],
        ["parent", showParent(run)],
        ["custom id", plain(text(run.customId))],
        ["starter", plain(text(run.starter))],
        ["made from", showOrigin(object(run.origin))],
        ["goes on", plain(successorsOf(run).join(" "))],
        ["accepted", showAgo(run.acceptedAt, now)],
        ["starts", showUntil(run.startAt, now)],
        ["expires", isFinal(bareStatus(run.status)) ? "" : showUntil(run.brokenUntil ?? run.deadlineAt, now)],
        ["took", showBetween(run.acceptedAt, run.endedAt, now)],
        ["labels", plain(labels.join(" "))],
        ["failure", showFailure(run.failure)],
        ["input", showValue(answer.input)],
        ["output", showValue(answer.output)],
      ];
      for (const [name, value] of facts) if (value !== "") out.line(`${out.colors.dim(name.padEnd(9))} ${value}`);
      const steps = objects(answer.steps);
      if (steps.length === 0) return;
      out.line();
      const nested = steps.some((step) => text(step.childRunId) !== "");
      out.table(
        ["STEP", "STATUS", "ATTEMPT", "TOOK", "METHOD", ...(nested ? ["RUN"] : []), "OUTPUT OR FAILURE"],
        steps.map((step) => [
          plain(text(step.stepId)),
          paintStatus(step.status, out.colors),
          String(step.attempt ?? 0),
          showBetween(step.startedAt, step.endedAt, now),
          plain(text(step.method)),
          ...(nested ? [plain(showChild(step))] : []),
          showFailure(step.failure) || showItems(step.items) || showValue(step.output, 80) || showPause(step, now),
        ]),
      );
    });

/** Until when a step waits, or stands between two attempts; "" where nothing but an answer ends that. */
function showPause({ status, waitUntil, retryAt }: Record<string, Json>, now: number): string {
  const bare = bareStatus(status);
  if (bare === "WAITING" && waitUntil) return `until ${showUntil(waitUntil, now)}`;
  return bare === "RETRYING" && retryAt ? `again at ${showUntil(retryAt, now)}` : "";
}

/** The run that a step started, and how it stands where that needs somebody. */
function showChild({ childRunId, childStatus }: Record<string, Json>): string {
  const needsSomebody = childStatus === "RUN_STATUS_BROKEN" || childStatus === "RUN_STATUS_PAUSED";
  return needsSomebody ? `${text(childRunId)} (${bareStatus(childStatus)})` : text(childRunId);
}

/** The run that this one was made from, "" if it was not made from any. */
function showOrigin({ runId, kind, stepId }: Record<string, Json>): string {
  if (text(runId) === "") return "";
  const how = text(kind).replace("RUN_ORIGIN_KIND_", "").toLowerCase().replace("_", " ");
  return plain(`${text(runId)} (${how}${text(stepId) === "" ? "" : ` from ${text(stepId)}`})`);
}

/** Runs that were made from this one. */
const successorsOf = ({ successorRunIds }: Record<string, Json>): string[] =>
  Array.isArray(successorRunIds) ? successorRunIds.map(text) : [];

/** The step that started the run, "" if none did. */
function showParent({ parentRunId, parentStepId, parentItem }: Record<string, Json>): string {
  const runId = text(parentRunId);
  const item = parentItem ? `, item ${String(parentItem)},` : "";
  return runId === "" ? "" : plain(`step ${text(parentStepId)}${item} of run ${runId}`);
}
