/** BulkService: what is BROKEN, and operations over many runs. They are only stored here; bulk-work.ts does them. */
import {
  BulkKind,
  type BulkOperation,
  type BulkServiceServer,
  RunFilter,
  StartBulkOperationRequest,
} from "@taskmesh/proto";
import { statusError, uuidv7 } from "@taskmesh/runtime";
import type { Violation } from "../contracts/check.js";
import { type BulkRow, groupBroken, insertBulk, readBulk } from "../store/bulk-operations.js";
import type { Database } from "../store/db.js";
import { checkMending, type Mending, tryValue } from "./bulk-mending.js";
import { unary } from "./calls.js";
import { invalid } from "./given-value.js";
import { checkLabels } from "./request-checks.js";
import { checkAsked, updateOf } from "./run-operations.js";
import { toTimestamp } from "./run-view.js";

export interface BulkServiceDeps extends Mending {
  db: Database;
  namespaces: { resolve(name: string): Promise<{ id: number; name: string }> };
  /** There is a new operation. */
  kick(): void;
}

const uuids = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Makes the service. */
export function createBulkService(deps: BulkServiceDeps): BulkServiceServer {
  return {
    groupBrokenRuns: unary(async (request) => {
      const { id } = await deps.namespaces.resolve(request.namespace);
      const groups = await groupBroken(deps.db, id, request.byStarter);
      return {
        groups: groups.map(({ oldestMs, count, ...group }) => ({
          ...group,
          count: BigInt(count),
          oldest: toTimestamp(oldestMs),
        })),
      };
    }),
    startBulkOperation: unary(async (request) => {
      checkStart(request);
      const namespace = await deps.namespaces.resolve(request.namespace);
      const id = request.operationId === "" ? uuidv7() : request.operationId;
      const row = { id, namespaceId: namespace.id, lastId: lastIdNow() };
      await tryValue(deps, row, request);
      await insertBulk(deps.db, { ...row, request: StartBulkOperationRequest.encode(request).finish() });
      deps.kick();
      return { operation: await find(deps, namespace, id) };
    }),
    getBulkOperation: unary(async (request) => {
      const namespace = await deps.namespaces.resolve(request.namespace);
      return { operation: await find(deps, namespace, request.operationId) };
    }),
  };
}

/** No run that was accepted until now has a greater id. */
const lastIdNow = (): string => `${uuidv7().slice(0, 13)}-7fff-bfff-ffffffffffff`;

async function find(
  { db }: BulkServiceDeps,
  namespace: { id: number; name: string },
  id: string,
): Promise<BulkOperation> {
  const row = uuids.test(id) ? await readBulk(db, namespace.id, id) : undefined;
  if (row) return show(row, namespace.name);
  const message = `namespace ${namespace.name} has no bulk operation ${JSON.stringify(id.slice(0, 64))}`;
  throw statusError({ reason: "BULK_OPERATION_NOT_FOUND", message });
}

function show(row: BulkRow, namespace: string): BulkOperation {
  const { kind, filter, reason, actor, stepId } = StartBulkOperationRequest.decode(row.request);
  const { id, changed, unchanged, failed, lastFailure } = row;
  const times = { createdAt: toTimestamp(row.createdAtMs), endedAt: toTimestamp(row.endedAtMs) };
  return {
    namespace,
    operationId: id,
    kind,
    filter,
    reason,
    actor,
    changed,
    unchanged,
    failed,
    lastFailure,
    stepId,
    ...times,
  };
}

function checkStart(request: StartBulkOperationRequest): void {
  const violations: Violation[] = [];
  const bad = (field: string, message: string): void => void violations.push({ field, message });
  const { operationId, kind } = request;
  const filter = request.filter ?? RunFilter.create();
  if (operationId !== "" && !uuids.test(operationId)) bad("operation_id", "is no UUID in lower case");
  if (kind === BulkKind.BULK_KIND_UNSPECIFIED || BulkKind[kind] === undefined || kind < 0)
    bad("kind", "says nothing to do: PAUSE, RESUME, CANCEL, TERMINATE, RETRY, UPDATE, SKIP or RESTART");
  checkMending(request, filter, bad);
  const said = Object.values(filter).some((value) =>
    typeof value === "object" ? Object.keys(value).length > 0 : value !== undefined && value !== "",
  );
  if (!said) bad("filter", "is for every run of the namespace; say which are meant, such as all of one method");
  checkLabels(filter.labels, "filter.labels", bad);
  if (violations.length > 0) throw invalid("ARGUMENT_INVALID", violations);
  checkAsked(request);
  if (kind === BulkKind.BULK_KIND_UPDATE) updateOf(request);
}
