import { Command } from "@commander-js/extra-typings";
import { methodPath } from "../api.js";
import { type JsonObject, object, objects, text } from "../json.js";
import { parseVersion } from "../options.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";
import { showAgo } from "../show.js";

/** `taskmesh chains show`: one version of a chain, its graph and its specification. */
export const chainsShow = () =>
  new Command("show")
    .description("show a chain: its steps, what each waits for, its specification")
    .argument("<name>", "full method name, acme.pages.v1.Pages/Check")
    .option("-v, --version <number>", "default: the newest", parseVersion)
    .option("--spec", "print the specification alone, as a document that `chains apply` takes")
    .action(async (name, options, command) => {
      const { api, out } = openSession(command);
      const answer = await api.call("GET", `/api/v1/chains/${methodPath(name)}`, {
        query: { version: options.version },
      });
      out.document(answer);
      if (out.json) return;
      const chain = object(answer.chain ?? answer);
      const spec = object(chain.spec);
      if (options.spec) {
        const { chainDocumentOf } = await import("../chain-document.js");
        return out.line(chainDocumentOf(spec));
      }
      out.line(
        `${out.colors.bold(plain(text(chain.name)))}  version ${String(chain.version)}, saved ${showAgo(chain.createdAt, Date.now())}`,
      );
      if (text(spec.description) !== "") out.line(plain(text(spec.description), { lines: true }));
      const edges = objects(chain.edges);
      out.line();
      out.table(
        ["STEP", "CALL", "AFTER", "WHEN"],
        objects(spec.steps).map((step) => [
          plain(text(step.id)),
          plain(text(step.call) || doing(step)),
          plain(
            edges
              .filter((edge) => edge.to === step.id)
              .map((edge) => text(edge.from))
              .join(", "),
          ),
          plain(text(step.when)),
        ]),
      );
    });

/** What a step does that calls nothing. */
const doing = (step: JsonObject): string =>
  ["wait", "signal", "callback", "human", "respond"].find((setting) => step[setting] !== undefined) ?? "";
