/** Items of fan-out steps as the API shows them: open ones from their state, those that are over from the history. */
import {
  EventKind,
  type Item,
  type ItemCounts,
  type ListItemsRequest,
  type ListItemsResponse,
  StepStatus,
} from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import { ItemMap } from "../engine/item-map.js";
import type { ChainPlan } from "../engine/plan.js";
import { type EachState, isOver, type StepState } from "../engine/run-state.js";
import { stepIndex } from "../engine/step-index.js";
import type { Db } from "../store/db.js";
import { type ItemEvent, readItemEvents } from "../store/item-reads.js";
import type { StoredRun } from "../store/runs.js";
import { shown, toTimestamp, writtenAs } from "./run-view.js";

const pageSizeDefault = 100;
const pageSizeMax = 1_000;

/** Where the items of a fan-out stand; `open`: how many are open and not over. */
export function itemCounts({ total, started, next, succeeded, failed }: EachState, open: number): ItemCounts {
  const opened = Math.min(open, next - started);
  return { total, waiting: total - started, active: Math.max(0, open - opened), succeeded, failed };
}

/** One page of a fan-out step's items. Throws STEP_NOT_FOUND, ARGUMENT_INVALID, PAGE_TOKEN_INVALID. */
export async function listItems(
  db: Db,
  { run, plan }: StoredRun & { plan: ChainPlan },
  request: ListItemsRequest,
): Promise<ListItemsResponse> {
  const index = stepIndex(plan, request.stepId);
  const name = JSON.stringify(request.stepId.slice(0, 64));
  if (index === undefined) throw statusError({ reason: "STEP_NOT_FOUND", message: `the run has no step ${name}` });
  if (!plan.steps[index]!.each) throw invalid("step_id", `is ${name}, which is no fan-out: it has no items`);
  const size = request.pageSize || pageSizeDefault;
  if (size > pageSizeMax) throw invalid("page_size", `is ${size}; at most ${pageSizeMax} is allowed`);
  const from = readToken(request.pageToken);
  const { each } = run.steps[index]!;
  if (!each) return { items: [], nextPageToken: "", counts: undefined };
  const open = run.items?.get(index) ?? ItemMap.none;
  const to = Math.min(from + size, each.next);
  const events = await readItemEvents(db, { runId: run.id, step: index, from, to, payloads: !request.omitPayloads });
  const items = itemsOf(from, to, events, plan.steps[index]!.contract);
  for (const item of items) {
    const state = open.get(item.item);
    if (state) describeOpen(item, state, !request.omitPayloads);
  }
  const nextPageToken = to < each.next ? Buffer.from(`i${to}`).toString("base64url") : "";
  return { items, nextPageToken, counts: itemCounts(each, open.size) };
}

function readToken(token: string): number {
  if (token === "") return 0;
  const index = /^i(\d{1,9})$/.exec(Buffer.from(token.slice(0, 64), "base64url").toString("utf8"))?.[1];
  if (index !== undefined) return Number(index);
  throw statusError({
    reason: "PAGE_TOKEN_INVALID",
    message: "page_token is not one that this API gave out; leave it empty for the first page",
    fieldViolations: [{ field: "page_token", description: "is not a token of an earlier answer" }],
  });
}

function invalid(field: string, description: string) {
  const fieldViolations = [{ field, description }];
  return statusError({ reason: "ARGUMENT_INVALID", message: `${field}: ${description}`, fieldViolations });
}

function itemsOf(from: number, to: number, events: readonly ItemEvent[], contract: string): Item[] {
  const items: Item[] = [];
  for (let item = from; item < to; item++) {
    items.push({
      item,
      key: "",
      // What is neither open nor recorded was stopped with its step.
      status: StepStatus.STEP_STATUS_CANCELLED,
      attempt: 0,
      lostAttempts: 0,
      input: undefined,
      output: undefined,
      failure: undefined,
      endedAt: undefined,
      executionMs: 0,
      retryAt: undefined,
      childRunId: "",
    });
  }
  for (const event of events) applyEvent(items[event.item - from]!, event, contract);
  return items;
}

function applyEvent(item: Item, { kind, atMs, attempt, body, payload }: ItemEvent, contract: string): void {
  item.attempt = Math.max(item.attempt, attempt);
  item.failure = body.failure ?? item.failure;
  if (body.executionMs) item.executionMs = body.executionMs;
  if (kind === EventKind.EVENT_KIND_ATTEMPT_LOST) item.lostAttempts += 1;
  if (kind === EventKind.EVENT_KIND_CHILD_STARTED) item.childRunId = body.note;
  const succeeded = kind === EventKind.EVENT_KIND_ITEM_SUCCEEDED;
  if (!succeeded && kind !== EventKind.EVENT_KIND_ITEM_FAILED) return;
  item.status = succeeded ? StepStatus.STEP_STATUS_SUCCEEDED : StepStatus.STEP_STATUS_FAILED;
  item.endedAt = toTimestamp(atMs);
  item.key = body.note;
  item.output = payload && shown(writtenAs(contract, payload));
  if (succeeded) item.failure = undefined;
}

function describeOpen(item: Item, state: StepState, payloads: boolean): void {
  if (isOver(state.status)) return;
  item.status = state.status;
  item.attempt = state.attempt;
  item.lostAttempts = state.lost;
  item.key = state.key ?? "";
  item.input = payloads && state.input ? shown(state.input) : undefined;
  if (state.status === StepStatus.STEP_STATUS_RETRYING) item.retryAt = toTimestamp(state.retryAtMs);
}
