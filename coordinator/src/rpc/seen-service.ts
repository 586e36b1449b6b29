/** SeenService: the memory across runs that the filter action asks. */
import type { FilterSeenRequest, FilterSeenResponse, SeenServiceServer } from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import type { Namespaces } from "../registry/namespaces.js";
import type { Db } from "../store/db.js";
import { claimSeenKeys, methodOfRun, seenSetId } from "../store/seen.js";
import { unary } from "./calls.js";

/** Keys of one call, as the contract says. */
const keysMax = 10_000;
const setCharsMax = 128;
const stepCharsMax = 512;
/** SHA-256. */
const hashBytes = 32;

/** What the service works with. */
export interface SeenServiceParts {
  db: Db;
  namespaces: Pick<Namespaces, "resolve">;
}

/** Makes the service: `listener.addService(SeenServiceService, createSeenService(parts))`. */
export function createSeenService({ db, namespaces }: SeenServiceParts): SeenServiceServer {
  return {
    filterSeen: unary(async (request: FilterSeenRequest): Promise<FilterSeenResponse> => {
      check(request);
      const { runId, stepId, item, set, keyHashes } = request;
      const { id: namespaceId } = await namespaces.resolve(request.namespace);
      const method = await methodOfRun(db, namespaceId, runId);
      if (method === undefined) {
        throw statusError({ reason: "RUN_NOT_FOUND", message: `there is no run ${runId} in the namespace` });
      }
      const setId = await seenSetId(db, namespaceId, method, set);
      const own = await claimSeenKeys(db, setId, `${runId}/${stepId}/${item}`, keyHashes);
      return {
        fresh: keyHashes.map((key) => {
          // Taken out, so that a key that is named twice is new once.
          return own.delete(Buffer.from(key).toString("hex"));
        }),
      };
    }),
  };
}

function check({ runId, stepId, set, keyHashes }: FilterSeenRequest): void {
  const refuse = (field: string, description: string) => {
    const fieldViolations = [{ field, description }];
    throw statusError({ reason: "ARGUMENT_INVALID", message: `${field} ${description}`, fieldViolations });
  };
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(runId)) refuse("run_id", "is no run id");
  if (stepId.length > stepCharsMax || stepId.includes("\0"))
    refuse("step_id", `has NUL or over ${stepCharsMax} characters`);
  if (set.length > setCharsMax || set.includes("\0")) refuse("set", `has NUL or over ${setCharsMax} characters`);
  if (keyHashes.length > keysMax) refuse("key_hashes", `has over ${keysMax} keys`);
  const odd = keyHashes.findIndex((key) => key.length !== hashBytes);
  if (odd >= 0) refuse(`key_hashes[${odd}]`, `does not have ${hashBytes} bytes`);
}
