/** A chain as a file: what is sent to the mesh, and where its author wrote each part of it. */
import { readFileSync } from "node:fs";
import { parseChainDocument } from "@taskmesh/runtime";
import { CliError, exitCode, usageError } from "./exit.js";
import type { JsonObject } from "./json.js";
import { plain } from "./output.js";

export interface ChainFile {
  /** As given on the command line, for messages. */
  name: string;
  /** Canonical JSON of a ChainSpec. */
  spec: JsonObject;
  /** Where a part of the specification is written; `start`: offset in its expression, in UTF-16 code units. */
  locate(path: string, start?: number): { line: number; column: number } | undefined;
}

function readText(path: string): string {
  try {
    return readFileSync(path === "-" ? 0 : path, "utf8");
  } catch (error) {
    throw usageError(`can't read ${path === "-" ? "stdin" : path}: ${(error as Error).message}`);
  }
}

/**
 * Reads a chain from a YAML or JSON file, or from stdin for "-".
 * @throws CliError (usage) if the file can't be read; (bad) with every problem and its place if it holds no chain.
 */
export function readChainFile(path: string): ChainFile {
  const name = path === "-" ? "stdin" : path;
  const { json, problems, locate } = parseChainDocument(readText(path));
  if (problems.length > 0 || json === undefined) {
    const lines = problems.map(({ line, column, message, suggestion }) => {
      const ask = suggestion === "" ? "" : `; did you mean "${suggestion}"?`;
      return plain(`${name}:${line}:${column} ${message}${ask}`);
    });
    throw new CliError(exitCode.bad, lines.join("\n"), { problem: { file: name, problems } });
  }
  return { name, spec: json as JsonObject, locate };
}
