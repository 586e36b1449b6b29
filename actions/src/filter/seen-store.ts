/** The memory that the filter action asks, and its implementation over the mesh. */
import { createHash } from "node:crypto";
import { fail } from "@taskmesh/action-sdk";
import { SeenServiceClient } from "@taskmesh/proto";
import { type ChannelConfig, createClient, isStatusError, unaryCall } from "@taskmesh/runtime";

/** What is asked of the memory. */
export interface SeenQuery {
  namespace: string;
  runId: string;
  stepId: string;
  /** Index of the item in a fan-out step, 0 otherwise. */
  item: number;
  /** Name of the memory within the chain. */
  set: string;
  /** Different from each other, at most 10,000. */
  keys: readonly string[];
  signal: AbortSignal;
}

/** Remembers what runs have seen. */
export interface SeenStore {
  /**
   * Tells for each key whether no earlier caller of the same memory has named it, and remembers all of them durably. A memory belongs
   * to the namespace, the method that the run was started with, and the set. Repeating the call for the same run, step and item gives the
   * same answer. Rejects with SEEN_UNAVAILABLE if the memory can't be asked.
   */
  filterNew(query: SeenQuery): Promise<boolean[]>;
}

/** One call, of which the action's retry policy makes more. */
const callDeadlineMs = 15_000;

/** The memory of the mesh: taskmesh.v1.SeenService of the coordinators at `addresses`. Connects when it is first asked. */
export function createMeshSeenStore(config: ChannelConfig): SeenStore {
  let client: SeenServiceClient | undefined;
  return {
    async filterNew({ keys, signal, ...place }) {
      client ??= createClient(SeenServiceClient, config);
      const keyHashes = keys.map((key) => createHash("sha256").update(key).digest());
      try {
        const request = { ...place, keyHashes };
        const { fresh } = await unaryCall(client, client.filterSeen, request, { signal, deadlineMs: callDeadlineMs });
        return fresh;
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        const why = isStatusError(error) ? `${error.reason}: ${error.message}` : String(error);
        throw fail.retryable("SEEN_UNAVAILABLE", `the mesh could not be asked what is new: ${why}`, { cause: error });
      }
    },
  };
}
