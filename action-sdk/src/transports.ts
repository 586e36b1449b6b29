/** Opens the transport that a registration names, and says when one that is open may stay. */
import { type Registered, TransportKind } from "@taskmesh/proto";
import {
  type Carrier,
  type ClientConfig,
  openJetStreamWork,
  openRelayWork,
  parseAddress,
  type WorkTransport,
} from "@taskmesh/runtime";
import type { Dialled } from "./dial.js";

/** The registration that holds, and the coordinator that holds it. */
export interface Session {
  registered: Registered;
  dialled: Dialled;
}

/** What a transport is made of. */
export interface TransportParts {
  registered: Registered;
  dialled: Dialled;
  client: ClientConfig;
  /** The mesh in this process, if there is one. */
  carrier: Carrier | undefined;
}

/** The worker's side of the transport, not yet open. Throws an Error if the coordinator names one that can't be opened here. */
export function createTransport({ registered, dialled, client, carrier }: TransportParts): WorkTransport {
  const { namespaceId, sessionId, transport, jetstream } = registered;
  if (transport === TransportKind.TRANSPORT_KIND_MEMORY && carrier) {
    return carrier.workTransport({ namespaceId, sessionId });
  }
  if (transport === TransportKind.TRANSPORT_KIND_JETSTREAM && jetstream) return openJetStreamWork(jetstream);
  if (transport === TransportKind.TRANSPORT_KIND_RELAY) {
    // The coordinator that holds the session: its cache knows it, and both streams then stand or fall together.
    const address = parseAddress(dialled.address);
    const channel = { ...client, addresses: address ? [address] : client.addresses };
    return openRelayWork({ channel, namespace: client.namespace, sessionId });
  }
  throw new Error(`the coordinator assigned transport ${TransportKind[transport]}, which can't be opened here`);
}

/** Whether an open transport serves a renewed registration: the same session, lanes and servers, and for the relay the same coordinator. */
export function keepsTransport(before: Session, after: Session): boolean {
  const essence = ({ registered, dialled }: Session): string => {
    const { sessionId, transport, lanes, jetstream } = registered;
    const relayed = transport === TransportKind.TRANSPORT_KIND_RELAY ? dialled.address : "";
    return JSON.stringify([sessionId, transport, lanes, jetstream?.servers, jetstream?.donePrefix, relayed]);
  };
  return essence(before) === essence(after);
}
