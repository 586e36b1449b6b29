/** Checkpoints: typed messages that an attempt keeps for the next one. On the wire they are encoded google.protobuf.Any messages. */
import { Any, type StartStep } from "@taskmesh/proto";

/** Most bytes of a checkpoint, its type's name included: it travels with beats. */
export const checkpointBytesMax = 16 * 1024;

/** An encoded message under its full name, or under a type URL. */
export function toCheckpoint(type: string, value: Uint8Array): Any {
  return { typeUrl: type.includes("/") ? type : `type.googleapis.com/${type}`, value: Buffer.from(value) };
}

/** The message of a checkpoint; undefined if it is of another type, or no message of it. */
export function readCheckpoint<T>(
  checkpoint: Any,
  type: string,
  codec: { decode(bytes: Uint8Array): T },
): T | undefined {
  const name = (url: string): string => url.slice(url.lastIndexOf("/") + 1);
  if (name(checkpoint.typeUrl) !== name(type)) return undefined;
  try {
    return codec.decode(checkpoint.value);
  } catch {
    return undefined;
  }
}

/** The checkpoint that came with a start. */
export function checkpointOf({ checkpoint }: StartStep): Any | undefined {
  if (checkpoint?.data?.$case !== "inline") return undefined;
  try {
    return Any.decode(checkpoint.data.value);
  } catch {
    return undefined;
  }
}
