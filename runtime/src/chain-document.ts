/**
 * Chains as people write them: YAML (or JSON) to a ChainSpec and back, with the place of everything in the text.
 *
 * The text says the same as canonical protobuf JSON, with less to type:
 *   - keys in snake_case (camelCase works too)
 *   - where an expression stands, a string is CEL and any other scalar is a literal; `{cel: …}` and `{literal: …}` say it in full
 *   - times are written 500ms, 1s, 2m, 1h30m
 *   - on_unhandled: FAIL or BREAK
 *
 * Documents come from outside: size, nesting and aliases are bounded, an unknown key is an error with the nearest right one, and
 * nothing of the text is ever run.
 */
import {
  createFileRegistry,
  type DescMessage,
  fromBinary,
  fromJson,
  type JsonObject,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { type ChainProblem, ChainSpec, meshDescriptorSet } from "@taskmesh/proto";
import { type Document, LineCounter, parseDocument } from "yaml";
import { ChainReader, chainKeys, type DocumentProblem, problemsMax, type TextPlace } from "./chain-reader.js";

/** Largest document in bytes of UTF-8. */
export const chainDocumentBytesMax = 1024 * 1024;
export interface ChainDocument {
  /** Absent if there are problems. */
  spec?: ChainSpec;
  /** The spec as canonical protobuf JSON. */
  json?: JsonObject;
  problems: DocumentProblem[];
  /**
   * Where a path of the ChainSpec stands in the text; with an offset into an expression, where that character of it stands. What is not in
   * the text is located at the nearest thing around it that is.
   */
  locate: (path: string, offsetInExpression?: number) => TextPlace;
}

/** Reads a chain from YAML or JSON text. Never throws. */
export function parseChainDocument(text: string): ChainDocument {
  const nowhere = () => ({ line: 1, column: 1 });
  const refused = (message: string): ChainDocument => ({
    problems: [{ ...nowhere(), path: "", message, suggestion: "" }],
    locate: nowhere,
  });
  if (Buffer.byteLength(text) > chainDocumentBytesMax) return refused("the document is larger than 1 MiB");
  if (opensTooMany(text)) return refused("the document nests too deeply");
  const lines = new LineCounter();
  let document: Document;
  try {
    document = parseDocument(text, { lineCounter: lines, intAsBigInt: true, prettyErrors: false, strict: true });
  } catch (error) {
    // The parser is recursive: absurd nesting ends its stack.
    return refused(`the document can't be parsed: ${error instanceof Error ? error.message : String(error)}`);
  }
  const reader = new ChainReader(document, lines, text);
  for (const error of document.errors.slice(0, problemsMax)) reader.problem(error.pos[0], "", error.message);
  const locate = (path: string, offset?: number) => reader.locate(path, offset);
  if (reader.problems.length > 0) return { problems: reader.problems, locate };
  const json = reader.record(document.contents, chainKeys, "", 0);
  if (reader.problems.length > 0) return { problems: reader.problems, locate };
  try {
    return { spec: chainSpecFromJson(json), json, problems: [], locate };
  } catch (error) {
    reader.problem(0, "", error instanceof Error ? error.message : String(error));
    return { problems: reader.problems, locate };
  }
}

/** A ChainSpec from its canonical protobuf JSON. Throws an Error that says what is wrong with it. */
export function chainSpecFromJson(json: JsonObject): ChainSpec {
  return ChainSpec.decode(toBinary(specType(), fromJson(specType(), json)));
}

/** The parser takes quadratic time over thousands of brackets that nobody closes. */
function opensTooMany(text: string): boolean {
  let open = 0;
  for (let i = 0; i < text.length && open < bracketsMax; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x5b || c === 0x7b) open++;
    else if (c === 0x5d || c === 0x7d) open--;
  }
  return open >= bracketsMax;
}

const bracketsMax = 500;

let spec: DescMessage | undefined;

function specType(): DescMessage {
  spec ??= createFileRegistry(fromBinary(FileDescriptorSetSchema, meshDescriptorSet)).getMessage(
    "taskmesh.v1.ChainSpec",
  );
  return spec!;
}

/** `step score, text: SelectResponse has no field "txt"; did you mean "text"?` */
export function describeChainProblem(
  problem: Pick<ChainProblem, "stepId" | "field" | "path" | "message" | "suggestion">,
): string {
  const { stepId, field, path, message, suggestion } = problem;
  const owner = stepId === "" ? path.split(/[.[]/, 1)[0]! : `step ${stepId}`;
  const place = [owner, field].filter((part) => part !== "").join(", ");
  return `${place === "" ? "" : `${place}: `}${message}${suggestion === "" ? "" : `; did you mean "${suggestion}"?`}`;
}

/** The same after the file, line and column: `chain.yaml:17:38 step score, …`. */
export function locateChainProblem(problem: ChainProblem, document: ChainDocument, filename: string): string {
  const { line, column } = document.locate(problem.path, problem.expression === "" ? undefined : problem.start);
  return `${filename}:${line}:${column} ${describeChainProblem(problem)}`;
}
