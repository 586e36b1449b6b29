/** How much a worker over the relay asks for. */
import { messageBytesMax } from "./transport.js";

/** Bytes of starts that may be in hand. */
const bytesInHandMax = 16 * 1024 * 1024;

/** Bytes of starts that may be in hand for `slots`: every slot's largest, within the bound of the process. */
export function bytesFor(slots: number): number {
  return Math.min(slots * messageBytesMax, bytesInHandMax);
}
