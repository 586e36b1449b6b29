/** JetStream with nothing around it, for the floor: publishes with PubAcks on one inbox, pulls refilled at half. */
import { connect, type NatsConnection } from "@nats-io/transport-node";

export const openNats = (url: string): Promise<NatsConnection> =>
  connect({ servers: url, noAsyncTraces: true, maxReconnectAttempts: 0 });

let inboxes = 0;

/** Publishes and calls back at the PubAck. */
export function createPublisher(nc: NatsConnection): (subject: string, data: Uint8Array, stored: () => void) => void {
  const inbox = `_INBOX.p${process.pid}x${inboxes++}`;
  const waiting = new Map<string, () => void>();
  let next = 0;
  nc.subscribe(`${inbox}.*`, {
    callback: (_error, message) => {
      const key = message.subject.slice(inbox.length + 1);
      if (message.string().includes('"error"')) throw new Error(`PubAck: ${message.string()}`);
      waiting.get(key)?.();
      waiting.delete(key);
    },
  });
  return (subject, data, stored) => {
    const key = (next++).toString(36);
    waiting.set(key, stored);
    nc.publish(subject, data, { reply: `${inbox}.${key}` });
  };
}

const ackBytes = new TextEncoder().encode("+ACK");

/** Pulls from a durable consumer, `batch` outstanding at most. */
export function pull(
  nc: NatsConnection,
  stream: string,
  consumer: string,
  batch: number,
  take: (data: Uint8Array, ack: () => void) => void,
): void {
  const inbox = `_INBOX.q${process.pid}x${inboxes++}`;
  let outstanding = 0;
  const fill = (): void => {
    const wanted = batch - outstanding;
    if (wanted <= 0) return;
    outstanding += wanted;
    nc.publish(
      `$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`,
      JSON.stringify({ batch: wanted, expires: 30_000_000_000 }),
      { reply: inbox },
    );
  };
  nc.subscribe(inbox, {
    callback: (_error, message) => {
      const { reply } = message;
      if (!reply) {
        const left = Number(message.headers?.get("Nats-Pending-Messages") ?? 0);
        outstanding = Math.max(0, outstanding - left);
        fill();
        return;
      }
      outstanding -= 1;
      take(message.data, () => nc.publish(reply, ackBytes));
      if (outstanding <= batch >> 1) fill();
    },
  });
  fill();
}
