import { Command } from "@commander-js/extra-typings";
import { type JsonObject, objects, text } from "../json.js";
import { parseInstant, parseLimit, parsePairs, parseStatuses } from "../options.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";
import { paintStatus, showAgo, showBetween, showFailure } from "../show.js";

/** Largest page that the mesh serves. */
const pageMax = 1_000;

/** `taskmesh runs list`: newest first, filtered, over as many pages as the limit asks for. */
export const runsList = () =>
  new Command("list")
    .description("list runs, newest first")
    .option("-s, --status <status>", "only these; may be repeated or separated by commas", parseStatuses, [])
    .option("-m, --method <method>", "only runs of this action or chain")
    .option("-l, --label <key=value>", "only runs with all of these labels; may be repeated", parsePairs, {})
    .option(
      "--since <instant>",
      "accepted after: 2026-01-31T12:00:00Z, or a length before now such as 15m",
      parseInstant,
    )
    .option("--until <instant>", "accepted before, written like --since", parseInstant)
    .option("--id <id>", "only the run that has this custom id, or had it last")
    .option("--starter <name>", "only what this one has started")
    .option("-n, --limit <number>", "at most this many", parseLimit, 20)
    .action(async (options, command) => {
      const { api, out } = openSession(command);
      const runs: JsonObject[] = [];
      let pageToken: string | undefined;
      do {
        const query = {
          pageSize: Math.min(pageMax, options.limit - runs.length),
          pageToken,
          status: options.status,
          method: options.method,
          label: Object.entries(options.label).map(([key, value]) => `${key}=${value}`),
          acceptedAfter: options.since,
          acceptedBefore: options.until,
          customId: options.id,
          starter: options.starter,
        };
        const page = await api.call("GET", "/api/v1/runs", { query });
        runs.push(...objects(page.runs));
        pageToken = text(page.nextPageToken) || undefined;
      } while (pageToken !== undefined && runs.length < options.limit);
      out.document({ runs, more: pageToken !== undefined });
      if (out.json) return;
      if (runs.length === 0) return out.note("No such runs.");
      const now = Date.now();
      out.table(
        ["RUN", "METHOD", "STATUS", "ACCEPTED", "TOOK", "FAILURE"],
        runs.map((run) => [
          plain(text(run.runId)),
          plain(text(run.method)),
          paintStatus(run.status, out.colors),
          showAgo(run.acceptedAt, now),
          showBetween(run.acceptedAt, run.endedAt, now),
          showFailure(run.failure),
        ]),
      );
      if (pageToken !== undefined)
        out.note(`There are more: --limit ${options.limit * 5}, or narrow it with --status or --since.`);
    });
