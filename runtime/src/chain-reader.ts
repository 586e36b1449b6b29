/** Walks the YAML nodes of a chain beside the settings that a chain has, and makes canonical protobuf JSON of them. */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { type Document, isAlias, isMap, isScalar, isSeq, type LineCounter, type Node, type Pair } from "yaml";
import { literalInstant, parseDuration } from "./chain-format.js";
import { nearestName } from "./nearest-name.js";
import { offsetInSource } from "./yaml-offsets.js";

/** Deepest nesting of maps and lists. */
const depthMax = 64;
/** Nodes visited, those behind aliases once per use: what an alias bomb would multiply. */
const nodesMax = 100_000;
/** Problems reported at once. */
export const problemsMax = 50;

/** A place in a text, both counted from 1; columns in UTF-16 code units. */
export interface TextPlace {
  line: number;
  column: number;
}

/** One thing that is wrong with the document as such. */
export interface DocumentProblem extends TextPlace {
  /** Path in the ChainSpec, "steps[2].retry". */
  path: string;
  message: string;
  /** The nearest right name, "" if there is none. */
  suggestion: string;
}

/** What may stand where. */
type Shape =
  | { kind: "text" | "duration" | "number" | "whole" | "flag" }
  | { kind: "expression" | "condition" | "onUnhandled" | "span" | "instant" }
  /** One value of an enum, written without its prefix. */
  | { kind: "choice"; prefix: string; names: readonly string[] }
  | { kind: "record"; keys: Keys }
  | { kind: "list"; item: Shape }
  | { kind: "map"; item: Shape };

type Keys = Readonly<Record<string, Shape>>;

const text: Shape = { kind: "text" };
const duration: Shape = { kind: "duration" };
const expressions: Shape = { kind: "map", item: { kind: "expression" } };
const texts: Shape = { kind: "list", item: text };

const retryKeys: Keys = {
  fixed: { kind: "record", keys: { delay: duration } },
  linear: { kind: "record", keys: { initial: duration, increment: duration, cap: duration } },
  exponential: { kind: "record", keys: { initial: duration, factor: { kind: "number" }, cap: duration } },
  jitter: { kind: "number" },
  max_attempts: { kind: "whole" },
  budget: duration,
  non_retryable: texts,
};

const failureRuleKeys: Keys = { reasons: texts, continue: { kind: "flag" }, output: expressions };

const escalationKeys: Keys = {
  after: duration,
  assignees: { kind: "expression" },
  groups: { kind: "expression" },
  steps: texts,
};

const eachKeys: { [name: string]: Shape } = {
  items: { kind: "condition" },
  entries: { kind: "condition" },
  max_parallel: { kind: "whole" },
  tolerated_failures: { kind: "whole" },
  tolerated_share: { kind: "number" },
};
// A fan-out may be within a fan-out.
eachKeys["each"] = { kind: "record", keys: eachKeys };

const stepKeys: Keys = {
  id: text,
  call: text,
  input: expressions,
  when: { kind: "condition" },
  needs: texts,
  retry: { kind: "record", keys: retryKeys },
  schedule_to_start: duration,
  start_to_close: duration,
  heartbeat: duration,
  schedule_to_close: duration,
  task_queue: text,
  priority: { kind: "whole" },
  human: {
    kind: "record",
    keys: {
      title: { kind: "expression" },
      instructions: { kind: "expression" },
      assignees: { kind: "expression" },
      groups: { kind: "expression" },
      output: { kind: "map", item: text },
      escalations: { kind: "list", item: { kind: "record", keys: escalationKeys } },
    },
  },
  callback: { kind: "record", keys: { output: { kind: "map", item: text } } },
  signal: {
    kind: "record",
    keys: { name: text, output: { kind: "map", item: text }, answer: { kind: "map", item: text } },
  },
  respond: { kind: "record", keys: { to: text, output: expressions } },
  wait: { kind: "record", keys: { duration: { kind: "span" }, until: { kind: "instant" } } },
  join: { kind: "choice", prefix: "JOIN_", names: ["ALL", "ANY", "FIRST_SUCCESS"] },
  switch: {
    kind: "record",
    keys: {
      cases: { kind: "list", item: { kind: "record", keys: { when: { kind: "condition" }, steps: texts } } },
      otherwise: texts,
    },
  },
  repeat: {
    kind: "record",
    keys: { until: { kind: "condition" }, delay: duration, max_rounds: { kind: "whole" } },
  },
  parent_close: { kind: "choice", prefix: "PARENT_CLOSE_", names: ["CANCEL", "ABANDON", "WAIT"] },
  each: { kind: "record", keys: eachKeys },
  compensate: {
    kind: "record",
    keys: {
      call: text,
      input: expressions,
      retry: { kind: "record", keys: retryKeys },
      start_to_close: duration,
      schedule_to_close: duration,
      task_queue: text,
    },
  },
  on_failure: { kind: "list", item: { kind: "record", keys: failureRuleKeys } },
};

/** Settings of a chain. */
export const chainKeys: Keys = {
  contract: {
    kind: "record",
    keys: { name: text, input: { kind: "map", item: text }, output: { kind: "map", item: text } },
  },
  run_timeout: duration,
  steps: { kind: "list", item: { kind: "record", keys: stepKeys } },
  output: expressions,
  description: text,
  on_unhandled: { kind: "onUnhandled" },
  run_timeout_from: { kind: "choice", prefix: "RUN_TIMEOUT_FROM_", names: ["ACCEPTANCE", "FIRST_START"] },
  broken_ttl: duration,
};

const camel = (name: string): string => name.replace(/_(.)/g, (_, c: string) => c.toUpperCase());
const snake = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);

/** A node and what it is called in messages. */
const article: Record<Shape["kind"], string> = {
  text: "a text",
  duration: "a time such as 500ms, 1s, 2m or 1h30m",
  number: "a number",
  whole: "a whole number",
  flag: "true or false",
  expression: "a CEL expression or a literal",
  condition: "a CEL expression",
  onUnhandled: "FAIL or BREAK",
  span: "a time such as 30s or 1h30m, or a CEL expression that makes one",
  instant: "an instant such as 2026-01-31T12:00:00Z, or a CEL expression that makes one",
  choice: "one of these names",
  record: "a map",
  list: "a list",
  map: "a map",
};

export class ChainReader {
  readonly problems: DocumentProblem[] = [];
  private visited = 0;

  constructor(
    private readonly document: Document,
    private readonly lines: LineCounter,
    private readonly source: string,
  ) {}

  problem(offset: number, path: string, message: string, suggestion = ""): undefined {
    if (this.problems.length < problemsMax) this.problems.push({ ...this.place(offset), path, message, suggestion });
  }

  /** A map with known keys, as canonical JSON. */
  record(node: unknown, keys: Keys, path: string, depth: number): JsonObject {
    const result: JsonObject = {};
    for (const { key, name, value } of this.entries(node, path, depth)) {
      const known = Object.hasOwn(keys, name) ? name : snake(name);
      const shape = Object.hasOwn(keys, known) ? keys[known] : undefined;
      const at = path === "" ? known : `${path}.${known}`;
      if (shape === undefined) {
        const near = nearestName(name, Object.keys(keys));
        this.problem(startOf(key), path, `there is no setting "${clip(name)}" here`, near);
      } else if (Object.hasOwn(result, camel(known))) {
        this.problem(startOf(key), at, `"${known}" is set twice`);
      } else {
        const read = this.value(value, shape, at, depth + 1);
        if (read !== undefined) result[camel(known)] = read;
      }
    }
    return result;
  }

  /** Where the path stands; see ChainDocument.locate. */
  locate(path: string, offset?: number): TextPlace {
    let node: unknown = this.document.contents;
    let place = isNode(node) ? startOf(node) : 0;
    for (const part of path.match(/[^.[\]]+/g) ?? []) {
      node = this.resolve(node);
      if (isSeq(node)) node = node.items[Number(part)];
      else if (isMap(node)) {
        const pair: Pair | undefined = node.items.find((item) => {
          const name = isScalar(item.key) ? String(item.key.value) : "";
          return name === part || snake(name) === part;
        });
        if (pair === undefined) return this.place(place);
        if (isNode(pair.key)) place = startOf(pair.key);
        node = pair.value;
      } else return this.place(place);
      if (!isNode(node)) return this.place(place);
      // The place of a setting is its key, that of a list's item the item.
      if (!(isMap(node) || isSeq(node)) || /^\d+$/.test(part)) place = startOf(node);
    }
    if (offset === undefined || !isNode(node)) return this.place(place);
    node = this.resolve(node);
    if (isMap(node)) node = node.get("cel", true); // an expression written in full
    if (!isScalar(node) || typeof node.value !== "string" || node.range == null) return this.place(place);
    return this.place(offsetInSource(this.source, node.range, node.type, node.value, offset));
  }

  private value(raw: unknown, shape: Shape, path: string, depth: number): JsonValue | undefined {
    const node = this.visit(raw, path, depth);
    if (node === undefined) return undefined;
    switch (shape.kind) {
      case "record":
        return this.record(node, shape.keys, path, depth);
      case "map":
        return this.map(node, shape.item, path, depth);
      case "list":
        if (!isSeq(node)) return this.wrong(node, shape, path);
        return node.items.map((item, n) => this.value(item, shape.item, `${path}[${n}]`, depth + 1) ?? null);
      case "expression":
        return this.expression(node, path, depth);
      case "span": {
        const value = scalarOf(node);
        const time = typeof value === "string" ? parseDuration(value) : undefined;
        if (time !== undefined) return { literal: time };
        return typeof value === "bigint" || typeof value === "number"
          ? this.wrong(node, { kind: "duration" }, path, `; ${value} needs a unit: ${value}s`)
          : this.expression(node, path, depth);
      }
      case "instant":
        return literalInstant(scalarOf(node)) ?? this.expression(node, path, depth);
      case "condition": {
        const value = isMap(node) ? node.get("cel") : scalarOf(node);
        return typeof value === "string" || typeof value === "boolean" ? `${value}` : this.wrong(node, shape, path);
      }
      default:
        return this.scalar(node, shape, path);
    }
  }

  private scalar(node: Node, shape: Shape, path: string): JsonValue | undefined {
    const value = scalarOf(node);
    switch (shape.kind) {
      case "text":
        return typeof value === "string" ? value : this.wrong(node, shape, path, "; put it into quotes");
      case "number":
        return typeof value === "number" || typeof value === "bigint" ? Number(value) : this.wrong(node, shape, path);
      case "whole": {
        const number = typeof value === "bigint" ? Number(value) : value;
        const whole = typeof number === "number" && Number.isInteger(number) && Math.abs(number) < 2 ** 31;
        return whole ? number : this.wrong(node, shape, path);
      }
      case "flag":
        return typeof value === "boolean" ? value : this.wrong(node, shape, path);
      case "duration": {
        const time = typeof value === "string" ? parseDuration(value) : undefined;
        if (time !== undefined) return time;
        const hint = typeof value === "bigint" || typeof value === "number" ? `; ${value} needs a unit: ${value}s` : "";
        return this.wrong(node, shape, path, hint);
      }
      case "onUnhandled": {
        const name = typeof value === "string" ? value.replace(/^ON_UNHANDLED_/, "").toUpperCase() : "";
        return name === "FAIL" || name === "BREAK" ? `ON_UNHANDLED_${name}` : this.wrong(node, shape, path);
      }
      case "choice": {
        const name = typeof value === "string" ? value.toUpperCase().replace(shape.prefix, "") : "";
        if (shape.names.includes(name)) return shape.prefix + name;
        return this.wrong(node, shape, path, `: ${shape.names.join(", ")}`);
      }
      default:
        return undefined;
    }
  }

  private map(node: Node, item: Shape, path: string, depth: number): JsonObject {
    const result: JsonObject = {};
    for (const { key, name, value } of this.entries(node, path, depth)) {
      if (!/^[A-Za-z][A-Za-z0-9_]*$/.test(name)) {
        this.problem(startOf(key), path, `${JSON.stringify(clip(name))} is not the name of a field`);
        continue;
      }
      const read = this.value(value, item, `${path}.${name}`, depth + 1);
      if (read !== undefined) result[name] = read;
    }
    return result;
  }

  /** A string is CEL, another scalar a literal; a map or list can only be meant in full. */
  private expression(node: Node, path: string, depth: number): JsonValue | undefined {
    if (isMap(node) && node.items.length === 1) {
      const [entry] = this.entries(node, path, depth);
      if (entry?.name === "cel") {
        const value = this.visit(entry.value, path, depth + 1);
        if (value === undefined) return undefined;
        const cel = scalarOf(value);
        return typeof cel === "string" ? { cel } : this.wrong(value, { kind: "condition" }, path);
      }
      if (entry?.name === "literal") return { literal: this.json(entry.value, path, depth + 1) };
    }
    if (isMap(node) || isSeq(node)) {
      const example = isMap(node) ? "\"{'key': input.field}\"" : '"[input.a, input.b]"';
      return this.problem(
        startOf(node),
        path,
        `write it as one CEL expression in quotes, such as ${example}, or as {literal: …}`,
      );
    }
    const value = scalarOf(node);
    if (typeof value === "string") return { cel: value };
    if (value === null)
      return this.problem(startOf(node), path, "there is no value; leave the field out, or give it one");
    return { literal: this.json(node, path, depth) };
  }

  /** Any value as JSON. Integers beyond the safe range become strings, as protobuf JSON writes them. */
  private json(raw: unknown, path: string, depth: number): JsonValue {
    const node = raw === null ? undefined : this.visit(raw, path, depth);
    if (node === undefined) return null;
    if (isSeq(node)) return node.items.map((item) => this.json(item, path, depth + 1));
    if (isMap(node)) {
      return Object.fromEntries(
        this.entries(node, path, depth).map(({ name, value }) => [name, this.json(value, path, depth + 1)]),
      );
    }
    const value = scalarOf(node);
    if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
    if (typeof value === "number" && !Number.isFinite(value)) return String(value);
    return value === null || ["string", "number", "boolean"].includes(typeof value) ? (value as JsonValue) : null;
  }

  private entries(raw: unknown, path: string, depth: number): { key: Node; name: string; value: unknown }[] {
    const node = this.visit(raw, path, depth);
    if (node === undefined) return [];
    if (!isMap(node)) {
      this.wrong(node, { kind: "map", item: text }, path);
      return [];
    }
    const entries: { key: Node; name: string; value: unknown }[] = [];
    for (const { key, value } of node.items) {
      if (isScalar(key) && key.value !== null) entries.push({ key, name: String(key.value), value });
      else this.problem(isNode(key) ? startOf(key) : startOf(node), path, "only texts can be keys");
    }
    return entries;
  }

  /** The node itself, aliases followed; undefined, and a problem, if there is none or there were too many. */
  private visit(raw: unknown, path: string, depth: number): Node | undefined {
    const node = this.resolve(raw);
    this.visited++;
    if (node === undefined) return this.problem(isNode(raw) ? startOf(raw) : 0, path, "there is no value");
    if (this.visited === nodesMax)
      this.problem(startOf(node), path, "the document is too large (are there nested aliases?)");
    if (this.visited >= nodesMax) return undefined;
    if (depth > depthMax) return this.problem(startOf(node), path, `maps and lists nest deeper than ${depthMax}`);
    return node;
  }

  private resolve(raw: unknown): Node | undefined {
    if (isAlias(raw)) return raw.resolve(this.document);
    return isNode(raw) ? raw : undefined;
  }

  private wrong(node: Node, shape: Shape, path: string, hint = ""): undefined {
    return this.problem(startOf(node), path, `${article[shape.kind]} is expected${hint}`);
  }

  private place(offset: number): TextPlace {
    const { line, col } = this.lines.linePos(offset);
    return line === 0 ? { line: 1, column: 1 } : { line, column: col };
  }
}

const isNode = (node: unknown): node is Node => isScalar(node) || isMap(node) || isSeq(node) || isAlias(node);
const startOf = (node: Node): number => node.range?.[0] ?? 0;
const scalarOf = (node: Node): unknown => (isScalar(node) ? node.value : undefined);
const clip = (name: string): string => (name.length > 60 ? `${name.slice(0, 60)}…` : name);
