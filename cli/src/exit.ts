/**
 * How a command ends: the exit codes, and the one error that carries one.
 *
 * Everything that a person did or can repair is a CliError with a sentence that says so, and a hint that says what to do next.
 * Any other error is a defect of the program and is shown with its stack.
 */

/** Exit codes of `taskmesh`; documented in `taskmesh --help`, so they never change their meaning. */
export const exitCode = {
  /** Done; for `runs watch|result` and `runs start --watch|--wait`: the run succeeded. */
  ok: 0,
  /** The run ended badly, or a chain or a contract has problems. */
  bad: 1,
  /** The command line, or a file or value named on it, can't be used. */
  usage: 2,
  /** The mesh can't be reached, or can't answer now. */
  unreachable: 3,
  /** No such run, chain, action or namespace. */
  notFound: 4,
  /** The mesh refused: no permission, input that breaks the contract, a state that forbids it, or an internal failure. */
  refused: 5,
} as const;

export type ExitCode = (typeof exitCode)[keyof typeof exitCode];

/** An end that the person at the terminal can understand and act on. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly code: ExitCode;
  /** What to do next; printed below the message. */
  readonly hint: string | undefined;
  /** The problem document of the mesh, for `--json`. */
  readonly problem: unknown;

  constructor(code: ExitCode, message: string, more: { hint?: string; problem?: unknown; cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
    this.hint = more.hint;
    this.problem = more.problem;
  }
}

/** The command line itself is wrong, or names something that can't be used. */
export const usageError = (message: string, hint?: string): CliError =>
  new CliError(exitCode.usage, message, hint === undefined ? {} : { hint });
