import { Command } from "@commander-js/extra-typings";
import { objects } from "../json.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";

/** `taskmesh actions list`: the catalogue, with what can be served now. */
export const actionsList = () =>
  new Command("list")
    .description("list the registered actions, and whether a live worker serves them")
    .action(async (_options, command) => {
      const { api, out } = openSession(command);
      const answer = await api.call("GET", "/api/v1/actions");
      out.document(answer);
      const actions = objects(answer.actions);
      if (actions.length === 0) out.note("No actions are registered. A worker registers its own when it starts.");
      if (actions.length === 0 || out.json) return;
      out.table(
        ["ACTION", "SERVED", "WORKERS", "SLOTS", "REVISION", "DESCRIPTION"],
        actions.map((action) => [
          plain(String(action.method ?? "")),
          action.servable === true ? out.colors.green("yes") : out.colors.red("no"),
          String(action.workers ?? 0),
          String(action.slots ?? 0),
          String(action.revision ?? 0),
          plain(String(action.description ?? "")).split("\\x0a")[0] ?? "",
        ]),
      );
    });
