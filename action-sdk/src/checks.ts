/**
 * What is held against the contract before a handler runs and before its output leaves: the wire form of the type, and the
 * protovalidate rules that its author wrote. Types without rules cost the wire check alone.
 */
import { type DescMessage, type FileRegistry, fromBinary, type Message } from "@bufbuild/protobuf";
import { createValidator, type Validator } from "@bufbuild/protovalidate";
import { compileWireCheck } from "@taskmesh/runtime";
import { methodOf } from "./descriptors.js";
import type { ActionChecks, Check } from "./perform.js";

/** Violations named in one failure. */
const violationsMax = 10;
/** Field number of the options `(buf.validate.message)`, `(buf.validate.oneof)` and `(buf.validate.field)`. */
const rulesNumber = 1159;

/** The checks of one action. Throws a TypeError if the descriptors don't have its rpc. */
export function compileChecks(registry: FileRegistry, method: string): ActionChecks {
  const { input, output } = methodOf(registry, method);
  return { input: compileCheck(registry, input), output: compileCheck(registry, output) };
}

function compileCheck(registry: FileRegistry, desc: DescMessage): Check {
  const wire = compileWireCheck(desc);
  if (!hasRules(desc, new Set())) return wire;
  // Made at the first message: it takes tens of milliseconds.
  let validator: Validator | undefined;
  return (bytes) => {
    const fault = wire(bytes);
    if (fault !== undefined) return fault;
    validator ??= createValidator({ registry });
    return violations(validator, desc, fromBinary(desc, bytes));
  };
}

function violations(validator: Validator, desc: DescMessage, message: Message): string | undefined {
  const result = validator.validate(desc, message);
  if (result.kind === "valid") return undefined;
  if (result.kind === "error") return `its rules can't be evaluated: ${result.error.message}`;
  const shown = result.violations.slice(0, violationsMax).map((violation) => violation.toString());
  const rest = result.violations.length - shown.length;
  return shown.join("; ") + (rest > 0 ? `; and ${rest} more` : "");
}

/** Whether the type, or one that it reaches, carries protovalidate rules. */
function hasRules(desc: DescMessage, seen: Set<string>): boolean {
  if (seen.has(desc.typeName)) return false;
  seen.add(desc.typeName);
  const options = [
    desc.proto.options,
    ...desc.oneofs.map((o) => o.proto.options),
    ...desc.fields.map((f) => f.proto.options),
  ];
  if (options.some((set) => set?.$unknown?.some((field) => field.no === rulesNumber))) return true;
  return desc.fields.some((field) => field.message !== undefined && hasRules(field.message, seen));
}
