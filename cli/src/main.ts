/** The `taskmesh` program: parses the command line, runs one command, turns how it ended into an exit code. */
import { CommanderError } from "@commander-js/extra-typings";
import { CliError, exitCode } from "./exit.js";
import { createProgram } from "./program.js";

/** Time for the last output after a failure. */
const lingerMs = 1_000;

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

async function run(argv: string[]): Promise<number> {
  const program = createProgram();
  try {
    await program.parseAsync(argv);
    return exitCode.ok;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has printed its message already; help and version end with 0.
      return error.exitCode === 0 ? exitCode.ok : exitCode.usage;
    }
    if (error instanceof CliError) {
      reportError(error, argv.includes("--json"));
      return error.code;
    }
    process.stderr.write(`taskmesh failed in a way that it should not: ${(error as Error).stack ?? String(error)}\n`);
    return exitCode.refused;
  }
}

// A reader that has seen enough (`taskmesh runs list | head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(exitCode.ok);
  throw error;
});

process.exitCode = await run(process.argv);
// A part that failed to start may have left something open that would keep the program alive for ever.
if (process.exitCode !== exitCode.ok) setTimeout(() => process.exit(), lingerMs).unref();
