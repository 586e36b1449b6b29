import { Command } from "@commander-js/extra-typings";
import { object, objects, text } from "../json.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";
import { showAgo } from "../show.js";

/** `taskmesh chains list`: the newest version of each chain. */
export const chainsList = () =>
  new Command("list").description("list the chains, each with its newest version").action(async (_options, command) => {
    const { api, out } = openSession(command);
    const chains = [];
    let pageToken: string | undefined;
    do {
      const page = await api.call("GET", "/api/v1/chains", { query: { pageToken } });
      chains.push(...objects(page.chains));
      pageToken = text(page.nextPageToken) || undefined;
    } while (pageToken !== undefined);
    out.document({ chains });
    if (out.json) return;
    if (chains.length === 0) return out.note("No chains. Store one with: taskmesh chains apply chain.yaml");
    out.table(
      ["CHAIN", "VERSION", "STEPS", "SAVED", "DESCRIPTION"],
      chains.map((chain) => [
        plain(text(chain.name)),
        String(chain.version ?? 0),
        String(objects(object(chain.spec).steps).length),
        showAgo(chain.createdAt, Date.now()),
        plain(text(object(chain.spec).description)),
      ]),
    );
  });
