/** JMESPath over JSON. */
import jmespath from "jmespath";
import { createOutputMeter, TaskFailure } from "../bounded/task-failure.js";

/** A document to query: text to parse, or a value at hand. */
export interface QueryTask {
  text?: string;
  value?: unknown;
  expression: string;
}

/** Nesting that protobuf's Value may have at most: each level of JSON is two or three messages, of which readers accept 100. */
const resultDepthMax = 30;
/** The result goes out twice, as value and as text, and once more if it is a string. */
const resultBytesMax = 20 * 1024 * 1024;

/** Evaluates. Throws JSON_INVALID, QUERY_INVALID, QUERY_FAILED, OUTPUT_TOO_LARGE. */
export function queryJson(task: QueryTask): { result: unknown; json: string } {
  const document = task.text === undefined ? task.value : parse(task.text);
  const found: unknown = search(document, task.expression) ?? null;
  measure(found);
  // Through text once: what the value and the text say must be the same (shared parts, -0).
  const json = JSON.stringify(found);
  return { result: JSON.parse(json), json };
}

function parse(text: string): unknown {
  try {
    // A byte order mark is common at the start of files and no part of JSON.
    return JSON.parse(text.replace(/^\ufeff/, ""));
  } catch (cause) {
    throw new TaskFailure("JSON_INVALID", `the text is not JSON: ${(cause as Error).message.slice(0, 500)}`, cause);
  }
}

function search(document: unknown, expression: string): unknown {
  try {
    return jmespath.search(document, expression);
  } catch (cause) {
    if (cause instanceof RangeError || !(cause instanceof Error)) throw cause;
    const invalid = cause.name === "LexerError" || cause.name === "ParserError";
    throw new TaskFailure(invalid ? "QUERY_INVALID" : "QUERY_FAILED", cause.message.slice(0, 1_000), cause);
  }
}

/** Refuses a result that is too large or too deep before it is written: parts that are shared count each time they are reached. */
function measure(found: unknown): void {
  const meter = createOutputMeter(resultBytesMax);
  const visit = (value: unknown, depth: number): void => {
    if (depth > resultDepthMax) {
      throw new TaskFailure("OUTPUT_TOO_LARGE", `the result is nested deeper than ${resultDepthMax} levels`);
    }
    meter(typeof value === "string" ? value : "");
    if (Array.isArray(value)) {
      for (const item of value) visit(item, depth + 1);
    } else if (typeof value === "object" && value !== null) {
      for (const [key, item] of Object.entries(value)) {
        meter(key);
        visit(item, depth + 1);
      }
    }
  };
  visit(found, 1);
}
