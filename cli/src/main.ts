/** The `taskmesh` program: runs one command, and ends with its exit code. */
import { exitCode } from "./exit.js";
import { runProgram } from "./run-program.js";

/** Time for the last output after a failure. */
const lingerMs = 1_000;

// A reader that has seen enough (`taskmesh runs list | head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(exitCode.ok);
  throw error;
});

process.exitCode = await runProgram(process.argv);
// A part that failed to start may have left something open that would keep the program alive for ever.
if (process.exitCode !== exitCode.ok) setTimeout(() => process.exit(), lingerMs).unref();
