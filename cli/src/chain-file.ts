/** A chain as a file: what is sent to the mesh, and where its author wrote each part of it. */
import type { JsonObject } from "./json.js";

export interface ChainFile {
  /** As given on the command line, for messages. */
  name: string;
  /** Canonical JSON of a ChainSpec. */
  spec: JsonObject;
  /** Where a part of the specification is written; `start`: offset in its expression, in UTF-16 code units. */
  locate(path: string, start?: number): { line: number; column: number } | undefined;
}
export function readChainFile(_path: string): ChainFile {
  throw new Error("later");
}
