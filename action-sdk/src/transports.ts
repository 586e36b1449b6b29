/** Opens the transport that a registration names. */
import { type Registered, TransportKind } from "@taskmesh/proto";
import type { Carrier, WorkTransport } from "@taskmesh/runtime";
import type { Dialled } from "./dial.js";

/** What a transport is made of. */
export interface TransportParts {
  registered: Registered;
  dialled: Dialled;
  namespace: string;
  carrier: Carrier | undefined;
}

/** The worker's side of the transport, not yet open. Throws an Error if the coordinator names one that can't be opened here. */
export function createTransport(parts: TransportParts): WorkTransport {
  const { registered, carrier } = parts;
  const { namespaceId, sessionId, transport } = registered;
  if (carrier) return carrier.workTransport({ namespaceId, sessionId });
  throw new Error(`the coordinator assigned transport ${TransportKind[transport]}, which this worker does not speak`);
}
