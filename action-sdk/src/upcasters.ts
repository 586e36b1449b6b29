/** What actions say of inputs of older revisions, as a registration says it. */
import type { UpcasterOffer } from "@taskmesh/proto";
import type { ServedAction } from "./options.js";

/** The upcasters of the actions that a worker serves. */
export function upcastersOf(served: Iterable<ServedAction>): UpcasterOffer[] {
  return [...served].flatMap(({ action: { method, options } }) =>
    (options.upcasters ?? []).map(({ from, input, reason = "" }) => ({
      method,
      fromContract: from,
      input: { ...input },
      reason,
    })),
  );
}
