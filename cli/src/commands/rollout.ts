import { Command, InvalidArgumentError } from "@commander-js/extra-typings";
import { methodPath } from "../api.js";
import { CliError, exitCode, usageError } from "../exit.js";
import { type JsonObject, object, objects, text, texts } from "../json.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";
import { showAgo } from "../show.js";

function percent(value: string): number {
  const share = Number(value.replace(/%$/, ""));
  if (Number.isInteger(share) && share >= 0 && share <= 100) return share;
  throw new InvalidArgumentError("Say a whole percentage, from 0 to 100.");
}

const short = (contract: string): string => plain(contract).slice(0, 12);

/** `taskmesh contracts canary`: shows, sets or ends canaries. */
export const contractsCanary = () =>
  new Command("canary")
    .description("give new revisions of an action a share of the starts, take it back with 0, or show what is set")
    .argument("[method]", "full method name, acme.pages.v1.PageActions/Score")
    .argument("[contract]", "fingerprint of one revision; default: those registered from now on, or the canary's own")
    .option("--share <percent>", "0 to 100", percent)
    .option("--clear", "end the canary: its revisions are like any other")
    .option("--reason <text>", "why; recorded")
    .action(async (method, contract, options, command) => {
      if (method !== undefined) methodPath(method);
      const { share, clear, reason = "" } = options;
      if (share !== undefined && clear) throw usageError("--share and --clear can't both be given");
      if ((share !== undefined || clear) && method === undefined) throw usageError("name the action");
      const { api, out } = openSession(command);
      if (clear) await api.call("POST", "/api/v1/contracts/canaries/clear", { body: { method: method!, reason } });
      if (share !== undefined) {
        const body = { method: method!, contract: contract ?? "", share, reason };
        await api.call("PUT", "/api/v1/contracts/canaries", { body });
      }
      const answer = await api.call(
        "GET",
        "/api/v1/contracts/canaries",
        method === undefined ? {} : { query: { method } },
      );
      out.document(answer);
      if (out.json) return;
      const canaries = objects(answer.canaries);
      if (canaries.length === 0) return out.note("There is no canary.");
      out.table(
        ["METHOD", "SHARE", "CONTRACTS", "LIVE SLOTS", "SINCE", "REASON"],
        canaries.map((one) => [
          plain(text(one.method)),
          `${String(one.share ?? 0)}%`,
          texts(one.contracts).map(short).join(" ") || "none yet",
          String(one.liveSlots ?? 0),
          showAgo(one.changedAt, Date.now()),
          plain(text(one.reason)),
        ]),
      );
    });

/** Gathers "field=expression". */
function setting(value: string, before: Record<string, JsonObject>): Record<string, JsonObject> {
  const at = value.indexOf("=");
  if (at <= 0) throw new InvalidArgumentError("Say field=expression, such as \"currency='EUR'\".");
  return { ...before, [value.slice(0, at).trim()]: { cel: value.slice(at + 1).trim() } };
}

const outcomes: Record<string, string> = {
  UPCAST_OUTCOME_OK: "ok",
  UPCAST_OUTCOME_FAILED: "failed",
  UPCAST_OUTCOME_WAITING: "no input yet",
};

/** `taskmesh contracts upcast`: declares an upcaster, after trying it with live runs. */
export const contractsUpcast = () =>
  new Command("upcast")
    .description("say how inputs of one revision of an action become inputs of another; tried with the live runs first")
    .argument("<method>", "full method name, acme.pages.v1.PageActions/Score")
    .argument("<from>", "fingerprint of the older revision")
    .argument("<to>", "fingerprint of the newer revision")
    .option(
      "--set <field=expression>",
      "a field of the newer input, over `input`, the older one; repeatable",
      setting,
      {},
    )
    .option("--dry-run", "check and try it, and store nothing")
    .option("--force", "store it although it fails on live runs")
    .option("--delete", "take the upcaster back")
    .option("--reason <text>", "why; recorded")
    .action(async (method, fromContract, toContract, options, command) => {
      methodPath(method);
      const { api, out } = openSession(command);
      const about = { method, fromContract, toContract };
      if (options.delete) {
        const answer = await api.call("POST", "/api/v1/contracts/upcasters/delete", { body: about });
        out.document(answer);
        return out.line(answer.deleted === true ? out.colors.green("deleted") : "There was none.");
      }
      const upcaster = { ...about, input: options.set, reason: options.reason ?? "" };
      const { dryRun = false, force = false } = options;
      const answer = await api.call("POST", "/api/v1/contracts/upcasters", { body: { upcaster, dryRun, force } });
      out.document(answer);
      if (!out.json) {
        for (const warning of objects(answer.warnings)) out.note(plain(text(warning.message)));
        const reports = objects(answer.reports);
        const rows = reports.map((one) => [
          plain(text(one.runId)),
          plain(text(one.method)),
          plain(text(one.stepId)),
          outcomes[text(one.outcome)] ?? "unknown",
          plain(text(one.message)),
        ]);
        if (rows.length > 0) out.table(["RUN", "OF", "STEP", "INPUT", "WHY"], rows);
        const count = (name: string): string => String(object(answer)[name] ?? 0);
        out.line(
          `${count("succeeded")} live steps can be upcast, ${count("failed")} can't, ${count("waiting")} have no input yet`,
        );
      }
      if (answer.stored === true)
        return out.line(
          `${out.colors.green("declared")} ${plain(method)} ${short(fromContract)} → ${short(toContract)}`,
        );
      if (Number(answer.failed ?? 0) === 0) return;
      throw new CliError(exitCode.bad, "the upcaster fails on live runs; nothing was stored", {
        hint: "Mend it, or store it all the same with --force: those steps then fail.",
      });
    });
