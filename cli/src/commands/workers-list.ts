import { Command } from "@commander-js/extra-typings";
import { type JsonObject, object, objects, text } from "../json.js";
import { type Colors, plain } from "../output.js";
import { openSession } from "../session.js";
import { showAgo } from "../show.js";

function stateOf(worker: JsonObject, colors: Colors): string {
  if (worker.draining === true) return colors.yellow("draining");
  return worker.assignable === false ? colors.red("unreachable") : colors.green("ready");
}

const sum = (queues: JsonObject[], field: string): number =>
  queues.reduce((total, queue) => total + Number(queue[field] ?? 0), 0);

/** `taskmesh workers list`: the live sessions. */
export const workersList = () =>
  new Command("list").description("list the live workers").action(async (_options, command) => {
    const { api, out } = openSession(command);
    const answer = await api.call("GET", "/api/v1/workers");
    out.document(answer);
    if (out.json) return;
    const workers = objects(answer.workers);
    if (workers.length === 0) {
      out.note("No live workers. Start one with `npx tsx worker.ts`; `npx taskmesh init` writes an example.");
      return;
    }
    const rows = workers.map((worker) => {
      const queues = objects(worker.queues);
      const labels = Object.entries(object(worker.labels)).map(([key, value]) => `${key}=${text(value)}`);
      return [
        plain(text(worker.sessionId)),
        plain(`${text(worker.host)}:${String(worker.pid ?? "")}`),
        stateOf(worker, out.colors),
        `${sum(queues, "inFlight")}/${sum(queues, "slots")}`,
        plain(queues.map((queue) => text(queue.taskQueue)).join(", ")),
        showAgo(worker.lastBeatAt, Date.now()),
        plain([text(worker.version), ...labels].filter((part) => part !== "").join(" ")),
      ];
    });
    out.table(["SESSION", "HOST", "STATE", "IN FLIGHT", "QUEUES", "LAST BEAT", "VERSION, LABELS"], rows);
  });
