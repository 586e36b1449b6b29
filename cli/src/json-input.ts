/** JSON that is given on the command line. */
import { readFileSync } from "node:fs";
import { usageError } from "./exit.js";

/** JSON text: literal, from a file ("@path"), or from stdin ("-"). */
export function readJsonInput(given: string): string {
  let source = given;
  if (given === "-" || given.startsWith("@")) {
    const path = given === "-" ? 0 : given.slice(1);
    try {
      source = readFileSync(path, "utf8");
    } catch (error) {
      throw usageError(`can't read the input from ${given === "-" ? "stdin" : path}: ${(error as Error).message}`);
    }
  }
  try {
    JSON.parse(source);
    return source;
  } catch (error) {
    const hint = `Quote it for the shell: --input '{"url":"http://localhost:8000/"}', or use --input @file.json.`;
    throw usageError(`the input is not JSON: ${(error as Error).message}`, hint);
  }
}
