/**
 * Upcasters: how the input of one revision of an action's contract becomes the input of another, in expressions over the older message.
 *
 *   declared field        what its expression gives
 *   field of both, alike  copied without being named; a message within whose type changed is gone into, field by field
 *   any other             unset
 *
 * The result is a plan like a chain's, with the older input as its input and the newer one as its output: so it is evaluated on the event loop or
 * in the thread by the same rules (evaluation.ts).
 */
import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { type ChainProblem, type Expression, Upcaster } from "@taskmesh/proto";
import { sha256 } from "@taskmesh/runtime";
import type { ChainPlan, Evaluated, Scope } from "../engine/plan.js";
import { compileBinding, compileCondition } from "./cel/bind.js";
import { checkExpression } from "./cel/check.js";
import { compileProjection } from "./cel/projection.js";
import { createScopeTypes, isWellKnown, type ScopeTypes } from "./cel/scope-types.js";
import { checkMapping, problemOf, type Report } from "./compile-message.js";
import type { Contract } from "./contract.js";
import { knowsField, knowsMessage } from "./knows.js";
import { checkedBinding } from "./plan-parts.js";

/** Deepest message that is gone into, and expressions of one upcaster, at most. */
const depthMax = 20;
const expressionsMax = 500;

export interface CompiledUpcaster {
  /** Absent if there are problems. */
  plan?: ChainPlan;
  problems: ChainProblem[];
  warnings: ChainProblem[];
}

/** Checks and compiles it. `force`: evaluates whatever it costs. */
export function compileUpcaster(
  upcaster: Upcaster,
  from: Contract,
  to: Contract,
  options: { force?: boolean } = {},
): CompiledUpcaster {
  const compiler = new Compiler(upcaster, from, options.force ?? false);
  const { problems, warnings } = compiler;
  const bind = compiler.message(to.input, from.input, []);
  compiler.reportStrays();
  compiler.warnOfLosses(from.input, to.input, []);
  if (problems.length > 0) return { problems, warnings };
  const spec = Upcaster.encode(upcaster).finish();
  const plan: ChainPlan = {
    method: from.method,
    version: 0,
    // By this the thread knows it: a later declaration is another plan.
    contract: `${from.fingerprint}>${to.fingerprint}#${Buffer.from(sha256(spec)).toString("base64url")}`,
    outputContract: to.fingerprint,
    runTimeoutMs: 0,
    steps: [],
    bindOutput: checkedBinding(bind, to, "input"),
    source: {
      spec,
      contracts: new Map([
        ["from", from],
        ["to", to],
      ]),
      upcasts: true,
    },
  };
  return { plan, problems, warnings };
}

type Bind = (scope: Scope) => Evaluated<Uint8Array>;

/** A message within the message that is made. */
interface Inner {
  field: DescField;
  /** Whether it is there; undefined: always, since something in it is declared. */
  isThere: ((scope: Scope) => Evaluated<boolean>) | undefined;
  bind: Bind;
}

class Compiler {
  readonly problems: ChainProblem[] = [];
  readonly warnings: ChainProblem[] = [];
  private readonly types: ScopeTypes;
  private readonly declared: Readonly<Record<string, Expression>>;
  private readonly used = new Set<string>();

  constructor(
    { input }: Upcaster,
    from: Contract,
    private readonly force: boolean,
  ) {
    this.types = createScopeTypes({ desc: from.input, registry: from.registry }, []);
    this.declared = input;
    const count = Object.keys(input).length;
    if (count > expressionsMax) {
      const message = `the upcaster has ${count} expressions; at most ${expressionsMax} are allowed`;
      this.report({ reason: "TOO_LARGE", path: "input", message });
    }
  }

  /** Compiles what makes a message of `target` from the one of `source` at a path of the older input. */
  message(target: DescMessage, source: DescMessage | undefined, path: readonly string[]): Bind {
    const flat: Record<string, Expression> = {};
    const inner: Inner[] = [];
    const within = new Set<string>();
    for (const field of target.fields) {
      const key = [...path, field.name].join(".");
      const own = this.declared[key];
      if (own !== undefined) {
        this.used.add(key);
        flat[field.name] = own;
        continue;
      }
      const older = source?.fields.find((one) => one.number === field.number && one.name === field.name);
      const deeper = Object.keys(this.declared).some((one) => one.startsWith(`${key}.`));
      if (!deeper && older !== undefined && isAlike(field, older)) {
        flat[field.name] = { kind: { $case: "cel", value: ["input", ...path, field.name].join(".") } };
      } else if (field.fieldKind === "message" && path.length < depthMax && !isWellKnown(field.message)) {
        const one = this.inner(field, older, [...path, field.name], deeper);
        if (one === undefined) continue;
        inner.push(one);
        within.add(field.name);
      } else if (older !== undefined) {
        const message = `${target.name}.${field.name} changed its type: say how it is made of the older one`;
        this.report({ reason: "MISSING_VALUE", path: `input.${key}`, field: field.name, message });
      }
    }
    const mapping = { target, fields: flat, stepId: "", types: this.types, guarded: new Set<string>() };
    const place = ["input", ...path].join(".");
    const report: Report = (problem) => {
      // What is made by going into it is set.
      if (problem.reason !== "MISSING_FIELD" || !within.has(problem.field ?? "")) this.report(problem);
    };
    const { sources } = checkMapping({ ...mapping, path: place }, report);
    if (sources.some((one) => one.kind === "expression" && one.expression.reading.run)) {
      const message = "an upcaster reads the older input and nothing else: run is not part of it";
      this.report({ reason: "UNKNOWN_NAME", path: place, message, expected: "input" });
    }
    if (this.problems.length > 0) return () => ({ kind: "deferred" });
    const own = compileBinding(target, sources, this.types, { label: "upcaster", force: this.force });
    return inner.length === 0 ? own : (scope) => joined(own, inner, scope);
  }

  private inner(
    field: DescField & { fieldKind: "message" },
    older: DescField | undefined,
    path: readonly string[],
    deeper: boolean,
  ): Inner | undefined {
    const source = older?.fieldKind === "message" ? older.message : undefined;
    if (source === undefined && !deeper) return undefined;
    const bind = this.message(field.message, source, path);
    if (deeper || this.problems.length > 0) return { field, isThere: undefined, bind };
    const checked = checkExpression(`has(input.${path.join(".")})`, this.types, { bareAllowed: false });
    if (!checked.ok) return undefined;
    const options = { label: "upcaster", force: this.force };
    return { field, isThere: compileCondition(checked.value, this.types, options), bind };
  }

  /** Declared fields that the newer message has not. */
  reportStrays(): void {
    for (const key of Object.keys(this.declared)) {
      if (this.used.has(key)) continue;
      const message = `the newer input has no field "${key}" that an expression can set`;
      this.report({ reason: "UNKNOWN_FIELD", path: `input.${key}`, field: key, message, found: key });
    }
  }

  /** Fields of the older message that are gone and that nothing reads. */
  warnOfLosses(source: DescMessage, target: DescMessage, path: readonly string[]): void {
    const texts = Object.values(this.declared).map(({ kind }) => (kind?.$case === "cel" ? kind.value : ""));
    for (const field of source.fields) {
      const newer = target.fields.find((one) => one.number === field.number && one.name === field.name);
      const name = ["input", ...path, field.name].join(".");
      const isRead = texts.some((text) => text.includes(name) || text.includes(`.${field.name}`));
      if (newer === undefined && !isRead) {
        const message = `${name} is not part of the newer input, and no expression reads it: it is lost`;
        this.warnings.push(problemOf({ reason: "FIELD_LOST", path: name, field: field.name, message }));
      } else if (newer?.fieldKind === "message" && field.fieldKind === "message" && path.length < depthMax) {
        if (!isAlike(newer, field)) this.warnOfLosses(field.message, newer.message, [...path, field.name]);
      }
    }
  }

  private report(problem: Parameters<Report>[0]): void {
    this.problems.push(problemOf(problem));
  }
}

/** Whether the bytes of the older field are those of the newer one. */
function isAlike(newer: DescField, older: DescField): boolean {
  if (!knowsField(newer, older) || compileProjection([older], "", newer) === undefined) return false;
  return newer.message === undefined || older.message === undefined || knowsMessage(newer.message, older.message);
}

function joined(own: Bind, inner: readonly Inner[], scope: Scope): Evaluated<Uint8Array> {
  const flat = own(scope);
  if (flat.kind !== "value") return flat;
  const writer = new BinaryWriter().raw(flat.value);
  for (const { field, isThere, bind } of inner) {
    const there = isThere?.(scope);
    if (there !== undefined && there.kind !== "value") return there;
    if (there?.value === false) continue;
    const bytes = bind(scope);
    if (bytes.kind !== "value") return bytes;
    writer.tag(field.number, WireType.LengthDelimited).bytes(bytes.value);
  }
  return { kind: "value", value: writer.finish() };
}
