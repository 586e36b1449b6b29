/** JSON that is given on the command line. */
import { readFileSync } from "node:fs";
import { usageError } from "./exit.js";

/** The input of a run, as JSON text: literal, from a file ("@path"), or from stdin ("-"). */
export const readJsonInput = (given: string): string =>
  readJson(
    "input",
    given,
    `Quote it for the shell: --input '{"url":"http://localhost:8000/"}', or use --input @file.json.`,
  );

/** JSON text, given like that; `name` and `hint` are for the error where it is none. */
export function readJson(name: string, given: string, hint: string): string {
  let source = given;
  if (given === "-" || given.startsWith("@")) {
    const path = given === "-" ? 0 : given.slice(1);
    try {
      source = readFileSync(path, "utf8");
    } catch (error) {
      throw usageError(`can't read the ${name} from ${given === "-" ? "stdin" : path}: ${(error as Error).message}`);
    }
  }
  try {
    JSON.parse(source);
    return source;
  } catch (error) {
    throw usageError(`the ${name} is not JSON: ${(error as Error).message}`, hint);
  }
}
