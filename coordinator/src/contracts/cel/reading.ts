/** What is known of an expression when its syntax tree was walked (syntax.ts). */
import type { DescField } from "@bufbuild/protobuf";

/** A mistake in an expression; offsets in UTF-16 code units, `end` exclusive. */
export interface ExpressionProblem {
  reason: string;
  message: string;
  start: number;
  end: number;
  expected?: string;
  found?: string;
  suggestion?: string;
}

/** A path that is the whole expression: its value can be copied from one message to another without being looked at. */
export interface BarePath {
  /** Step index, or -1 for `input`. */
  source: number;
  /** From the outermost message inwards; empty: the message itself. */
  fields: readonly DescField[];
}

export interface Reading {
  problems: ExpressionProblem[];
  /** Indexes of the steps whose outputs are read. */
  steps: Set<number>;
  input: boolean;
  run: boolean;
  each: boolean;
  /** Reads the failure that it answers. */
  error: boolean;
  bare: BarePath | undefined;
  /** Deepest nesting of comprehensions. */
  depth: number;
  nodes: number;
  /** Reads something whose type is not known, because of another problem: it can't be checked. */
  opaque: boolean;
  /** Places (of whole has() calls) where an output that may be missing must be tested first. */
  presenceTests: { start: number; end: number; step: string }[];
}
