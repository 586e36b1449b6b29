import { Command } from "@commander-js/extra-typings";
import { object, objects, text } from "../json.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";
import { paintStatus, showFailure, showItems, showValue } from "../show.js";

/** `taskmesh runs items`: a page of a fan-out step's items. */
export const runsItems = () =>
  new Command("items")
    .description("list the items of a fan-out step")
    .argument("<run-id>")
    .argument("<step-id>")
    .option("--page-size <count>", "items of one page, at most 1000")
    .option("--page-token <token>", "the next page, as the one before told")
    .action(async (runId, stepId, options, command) => {
      const { api, out } = openSession(command);
      const path = `/api/v1/runs/${encodeURIComponent(runId)}/steps/${encodeURIComponent(stepId)}/items`;
      const { pageSize, pageToken } = options;
      const answer = await api.call("GET", path, { query: { pageSize, pageToken } });
      out.document(answer);
      if (out.json) return;
      const counts = showItems(answer.counts);
      if (counts !== "") out.line(counts);
      const items = objects(answer.items);
      // Items of a step that calls a chain, and of a fan-out around another one, are runs.
      const nested = items.some((item) => text(item.childRunId) !== "");
      out.table(
        ["ITEM", "KEY", "STATUS", "ATTEMPT", ...(nested ? ["RUN"] : []), "OUTPUT OR FAILURE"],
        items.map((item) => [
          String(item.item ?? 0),
          plain(text(item.key)),
          paintStatus(item.status, out.colors),
          String(item.attempt ?? 0),
          ...(nested ? [plain(text(item.childRunId))] : []),
          showFailure(item.failure) || showValue(object(item).output, 80),
        ]),
      );
      const next = text(answer.nextPageToken);
      if (next !== "") out.note(`More: --page-token ${next}`);
    });
