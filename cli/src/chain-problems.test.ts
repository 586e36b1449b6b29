import { describe, expect, it } from "vitest";
import { chainError, describeProblem, placeProblems, problemsOf } from "./chain-problems.js";
import { CliError, exitCode } from "./exit.js";
import type { JsonObject } from "./json.js";

const places: Record<string, [number, number]> = { "steps[2].input.text": [17, 20] };
const file = {
  name: "chain.yaml",
  spec: {},
  locate: (path: string, start?: number) => {
    const [line, column] = places[path] ?? [];
    return line === undefined || column === undefined ? undefined : { line, column: column + (start ?? 0) };
  },
};
const problem: JsonObject = {
  reason: "UNKNOWN_FIELD",
  path: "steps[2].input.text",
  stepId: "score",
  field: "text",
  expression: "steps.pick.output.txt",
  start: 18,
  end: 21,
  message: 'SelectResponse has no field "txt"',
  suggestion: "text",
};

const show = (problems: JsonObject[]) => placeProblems(file, problems).map((one) => describeProblem(file, one));

describe("problems of a chain", () => {
  it("are told with place, step, field and the nearest name", () => {
    const expected = 'chain.yaml:17:38 step score, text: SelectResponse has no field "txt"; did you mean "text"?';
    expect(show([problem])).toEqual([expected]);
  });

  it("ask for the nearest name once only", () => {
    const message = 'SelectResponse has no field "txt"; did you mean "text"?';
    expect(show([{ ...problem, message }])[0]?.match(/did you mean/g)).toHaveLength(1);
  });

  it("are told without a place where there is none, and can't send codes to the terminal", () => {
    expect(show([{ message: "a cycle\u001b[2J" }])).toEqual(["chain.yaml a cycle\\x1b[2J"]);
  });

  it("end a command with code 1 and all problems at once", () => {
    const error = chainError(file, [problem, { message: "second" }]);
    expect([error.code, error.message.split("\n").length]).toEqual([exitCode.bad, 2]);
  });

  it("are found in a refusal, as typed details or as fields", () => {
    const refusal = (document: unknown) => new CliError(exitCode.refused, "refused", { problem: document });
    const details = [{ "@type": "type.googleapis.com/taskmesh.v1.ChainInvalid", problems: [problem] }];
    expect(problemsOf(refusal({ reason: "CHAIN_INVALID", details }))).toEqual([problem]);
    const errors = [{ field: "steps[2].input.text", message: "wrong" }];
    expect(problemsOf(refusal({ reason: "CHAIN_INVALID", errors }))).toMatchObject([{ path: "steps[2].input.text" }]);
    expect(problemsOf(refusal({ reason: "OTHER", details }))).toBeUndefined();
  });
});
