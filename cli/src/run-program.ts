/** One command line from its words to its exit code. Tests call it as main.ts does. */
import { CommanderError } from "@commander-js/extra-typings";
import { CliError, exitCode } from "./exit.js";
import { createProgram } from "./program.js";

/** Errors become one message for a person, or one document for a program, on stderr. */
function reportError(error: CliError, json: boolean): void {
  if (json) {
    const document = {
      error: { message: error.message, hint: error.hint, exitCode: error.code, problem: error.problem },
    };
    process.stderr.write(`${JSON.stringify(document)}\n`);
    return;
  }
  process.stderr.write(`${error.message}\n${error.hint === undefined ? "" : `${error.hint}\n`}`);
}

/** Runs one command; `argv` is that of a process, its first two entries included. Answers the exit code and never throws. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  const program = createProgram();
  const [node = "", script = "", ...words] = argv;
  // An option of the program would be taken from every command too: `chains show NAME --version 2`.
  if (words[0] === "--version") words[0] = "-V";
  try {
    await program.parseAsync([node, script, ...words]);
    return exitCode.ok;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has printed its message already; help and version end with 0.
      return error.exitCode === 0 ? exitCode.ok : exitCode.usage;
    }
    if (error instanceof CliError) {
      reportError(error, words.includes("--json"));
      return error.code;
    }
    process.stderr.write(`taskmesh failed in a way that it should not: ${(error as Error).stack ?? String(error)}\n`);
    return exitCode.refused;
  }
}
