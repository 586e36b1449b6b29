import { Command } from "@commander-js/extra-typings";
import { type JsonObject, object, text } from "../json.js";
import { parseRetention } from "../options.js";
import { type Output, plain } from "../output.js";
import { openSession } from "../session.js";

function showNamespace(out: Output, answer: JsonObject): void {
  out.document(answer);
  if (out.json) return;
  const namespace = object(answer.namespace);
  out.line(`${plain(text(namespace.name))} keeps runs for ${String(namespace.retentionDays)} days after their end`);
}

/** `taskmesh namespace show`: the namespace's settings. */
export const namespaceShow = () =>
  new Command("show").description("show the settings of the namespace").action(async (_options, command) => {
    const { api, out } = openSession(command);
    showNamespace(out, await api.call("GET", "/api/v1/namespace"));
  });

/** `taskmesh namespace set`: changes them. */
export const namespaceSet = () =>
  new Command("set")
    .description("change the settings of the namespace")
    .requiredOption("--retention-days <days>", "days that runs are kept after their end", parseRetention)
    .action(async ({ retentionDays }, command) => {
      const { api, out } = openSession(command);
      showNamespace(out, await api.call("PATCH", "/api/v1/namespace", { body: { retentionDays } }));
    });
