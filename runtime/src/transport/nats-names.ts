/**
 * Names on the NATS server, and what its messages say about themselves. Subjects carry ids and checked names only: nothing that a
 * user chose becomes a token, a wildcard or a line of the protocol.
 */

/** Stream of starts: work-queue retention, each message is removed by its ack. */
export const startStream = "TASKMESH_START";
/** Stream of completions, the same. */
export const doneStream = "TASKMESH_DONE";

/** Prefix of the subjects that completions of a namespace are published on; the coordinator's id follows. */
export const donePrefix = (namespaceId: number): string => `done.${namespaceId}`;
/** Durable consumer of the completions that were addressed to a coordinator. */
export const doneConsumer = (coordinatorId: string): string => `done-${checkedToken(coordinatorId, "coordinator id")}`;
export const doneFilter = (coordinatorId: string): string => `done.*.${checkedToken(coordinatorId, "coordinator id")}`;
/** Subject of probes to a session. Plain NATS: a probe that nobody hears is worth nothing. */
export const probeSubject = (namespaceId: number, sessionId: string): string =>
  `probe.${namespaceId}.${checkedToken(sessionId, "session id")}`;
/** Prefix of the subjects on which handlers' outputs go to whoever waits; the run's id follows. Plain NATS: what nobody hears is gone. */
export const outputPrefix = (namespaceId: number): string => `out.${namespaceId}`;
export const outputSubject = (namespaceId: number, runId: string): string =>
  `${outputPrefix(namespaceId)}.${checkedToken(runId, "run id")}`;
/** Prefix of a worker's inboxes: no other worker may subscribe to it. */
export const sessionInboxPrefix = (sessionId: string): string => `_INBOX_${checkedToken(sessionId, "session id")}`;

/** `value`, if it can be one token of a subject. Throws otherwise: ids are made by the mesh, so that is a defect or an attack. */
export function checkedToken(value: string, what: string): string {
  if (/^[A-Za-z0-9_-]{1,100}$/.test(value)) return value;
  throw new Error(`a ${what} has 1 to 100 letters, digits, "-" or "_": ${JSON.stringify(value.slice(0, 100))}`);
}

/** The namespace in "done.<namespace id>.<coordinator id>", undefined if it is none. */
export function doneNamespace(subject: string): number | undefined {
  const token = subject.split(".")[1] ?? "";
  return /^(0|[1-9]\d{0,9})$/.test(token) && Number(token) <= 0xffffffff ? Number(token) : undefined;
}

/** What a delivery's reply subject says. */
export interface DeliveryInfo {
  /** Counted from 1; above 1 it was delivered before. */
  deliveries: number;
  streamSequence: number;
  consumerSequence: number;
  /** When the stream stored the message, by the server's clock. */
  storedAtMs: number;
}

/**
 * Reads a delivery's reply subject. Two forms exist:
 *   $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time ns>.<pending>
 *   $JS.ACK.<domain>.<account hash>.<stream>.<consumer>.<deliveries>... and possibly more at the end
 */
export function parseDelivery(reply: string): DeliveryInfo | undefined {
  const tokens = reply.split(".");
  const at = tokens.length === 9 ? 4 : 6;
  if (tokens.length < 9 || tokens[0] !== "$JS" || tokens[1] !== "ACK") return undefined;
  const info: DeliveryInfo = {
    deliveries: Number(tokens[at]),
    streamSequence: Number(tokens[at + 1]),
    consumerSequence: Number(tokens[at + 2]),
    storedAtMs: Number(tokens[at + 3]) / 1e6,
  };
  // NaN in any of them makes the sum NaN.
  const sum = info.deliveries + info.streamSequence + info.consumerSequence + info.storedAtMs;
  return Number.isNaN(sum) ? undefined : info;
}
