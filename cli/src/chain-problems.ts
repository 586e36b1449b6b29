/** What is wrong with a chain, said where its author wrote it: "chain.yaml:17:38 step score, text: ...". */
import { describeChainProblem } from "@taskmesh/runtime";
import type { ChainFile } from "./chain-file.js";
import { CliError, exitCode } from "./exit.js";
import { type JsonObject, objects, text } from "./json.js";
import { plain } from "./output.js";

/** Where a problem is in its file, counted from 1; absent if it is nowhere in particular. */
export interface Place {
  line: number;
  column: number;
}

/** A problem with its place, for programs. */
export type PlacedProblem = JsonObject & Partial<Place>;

/** The problems with the places that the file gives them. */
export function placeProblems(file: ChainFile, problems: JsonObject[]): PlacedProblem[] {
  return problems.map((problem) => ({
    ...problem,
    ...file.locate(text(problem.path), problem.expression ? Number(problem.start ?? 0) : undefined),
  }));
}

/** One problem as one line. */
export function describeProblem(file: ChainFile, problem: PlacedProblem): string {
  const place = problem.line === undefined ? "" : `:${problem.line}:${problem.column}`;
  const message = text(problem.message);
  const said = describeChainProblem({
    stepId: text(problem.stepId),
    field: text(problem.field),
    path: text(problem.path),
    message,
    suggestion: message.includes("did you mean") ? "" : text(problem.suggestion),
  });
  return plain(`${file.name}${place} ${said}`);
}

/** The problems in a refusal of the mesh; undefined: it was refused for something else. */
export function problemsOf(error: CliError): JsonObject[] | undefined {
  const document = error.problem as JsonObject | undefined;
  if (document?.reason !== "CHAIN_INVALID") return undefined;
  const typed = objects(document.details).flatMap((detail) => objects(detail.problems));
  if (typed.length > 0) return typed;
  const fields = objects(document.errors).map(({ field, message }) => ({
    path: text(field),
    field: text(field),
    message: text(message),
  }));
  return fields.length > 0 ? fields : undefined;
}

/** The end of a command whose chain has problems. */
export function chainError(file: ChainFile, problems: JsonObject[]): CliError {
  const placed = placeProblems(file, problems);
  const lines = placed.map((problem) => describeProblem(file, problem));
  return new CliError(exitCode.bad, lines.join("\n"), { problem: { file: file.name, problems: placed } });
}
