import { Command } from "@commander-js/extra-typings";
import { methodPath } from "../api.js";
import { objects, text, texts } from "../json.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";
import { showAgo } from "../show.js";

/** `taskmesh actions describe`: one action with its contract, workers and revisions. */
export const actionsDescribe = () =>
  new Command("describe")
    .description("show one action: its contract, its workers, its revisions")
    .argument("<method>", "full method name, acme.pages.v1.PageActions/Score")
    .action(async (method, _options, command) => {
      const { api, out } = openSession(command);
      const answer = await api.call("GET", `/api/v1/actions/${methodPath(method)}`);
      out.document(answer);
      if (out.json) return;
      const action = (answer.action ?? answer) as typeof answer;
      const served = action.servable === true ? out.colors.green("yes") : out.colors.red("no, no live worker");
      out.line(out.colors.bold(plain(text(action.method))));
      if (text(action.description) !== "") out.line(plain(text(action.description).trim(), { lines: true }));
      out.table(
        ["", ""],
        [
          ["served now", served],
          ["input", plain(text(action.inputType))],
          ["output", plain(text(action.outputType))],
          ["contract", `${plain(text(action.contract))} (revision ${String(action.revision ?? 0)})`],
          ["task queues", plain(texts(action.taskQueues).join(", "))],
        ],
      );
      if (text(answer.proto) !== "") out.line(`\n${plain(text(answer.proto).trim(), { lines: true })}`);
      const revisions = objects(answer.revisions);
      // Fingerprints are what canaries, upcasters and the gate's exceptions are about.
      if (revisions.length > 1) {
        out.line();
        out.table(
          ["REVISION", "CONTRACT", "REGISTERED"],
          revisions.map((one) => [
            String(one.number ?? 0),
            plain(text(one.contract)),
            showAgo(one.createdAt, Date.now()),
          ]),
        );
      }
      const workers = objects(answer.workers);
      if (workers.length > 0) out.line();
      if (workers.length > 0) {
        out.table(
          ["WORKER", "HOST", "PID", "VERSION", "LAST BEAT"],
          workers.map((worker) => [
            plain(text(worker.sessionId)),
            plain(text(worker.host)),
            String(worker.pid ?? ""),
            plain(text(worker.version)),
            showAgo(worker.lastBeatAt, Date.now()),
          ]),
        );
      }
    });
