/** The action `taskmesh.filter.v1.FilterActions/FilterNew`: what no earlier run of the same chain has seen. */
import { type ActionContext, type AnyAction, defineAction } from "@taskmesh/action-sdk";
import {
  FilterActionsService,
  type FilterNewRequest,
  type FilterNewResponse,
} from "../gen/taskmesh/filter/v1/filter.js";
import type { SeenStore } from "./seen-store.js";

const setDefault = "default";

/** Makes the action over a memory. */
export function filterActions(seen: SeenStore): AnyAction[] {
  return [defineAction(FilterActionsService.filterNew, (input, ctx) => filterNew(input, ctx, seen))];
}

async function filterNew(input: FilterNewRequest, ctx: ActionContext, seen: SeenStore): Promise<FilterNewResponse> {
  const places = new Map<string, number>();
  input.items.forEach((key, index) => {
    if (!places.has(key)) places.set(key, index);
  });
  const keys = [...places.keys()];
  const { namespace, runId, stepId, item, signal } = ctx;
  // Nothing to ask: an empty list is an answer too.
  const fresh =
    keys.length === 0
      ? []
      : await seen.filterNew({ namespace, runId, stepId, item, set: input.set || setDefault, keys, signal });
  const items = keys.filter((_, index) => fresh[index]);
  return { items, indexes: items.map((key) => places.get(key)!), dropped: input.items.length - items.length };
}
