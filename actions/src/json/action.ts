/** The action `taskmesh.json.v1.JsonActions/Query`: JMESPath over a document. */
import { type ActionContext, type AnyAction, defineAction } from "@taskmesh/action-sdk";
import type { ThreadPool } from "../bounded/thread-pool.js";
import { JsonActionsService, type QueryRequest, type QueryResponse } from "../gen/taskmesh/json/v1/json.js";

/** Makes the action; an expression can multiply its document, so it runs in `threads`. */
export function jsonActions(threads: ThreadPool): AnyAction[] {
  return [defineAction(JsonActionsService.query, (input, ctx) => query(input, ctx, threads))];
}

async function query(input: QueryRequest, ctx: ActionContext, threads: ThreadPool): Promise<QueryResponse> {
  const { document, expression } = input;
  const task =
    document?.$case === "value" ? { value: document.value, expression } : { text: document?.value ?? "", expression };
  const { result, json } = await threads.run("queryJson", task, ctx.signal);
  const text = typeof result === "string" ? result : result === null ? "" : json;
  return { result, json, text };
}
