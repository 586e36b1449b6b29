/** The command line as a library: for programs that run an embedded mesh of their own. */
export { exitCode } from "./exit.js";
