/**
 * What the mesh asks of a contract's next revision besides WIRE_JSON.
 *
 * The side decides: workers of the newer revision read inputs that callers and chains made by the older one, and chains that are pinned to
 * the older one read outputs that they make. So stricter limits break an input and laxer ones an output.
 */
import {
  create,
  type DescEnum,
  type DescField,
  type DescMessage,
  getExtension,
  hasExtension,
  ScalarType,
} from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import { describeTarget, type Target, targetOf } from "../cel/assignable.js";
import type { Contract } from "../contract.js";
import { meshFiles } from "../descriptors.js";
import { compareRules, hasOwnRules } from "./constraints.js";
import type { Side } from "./violation.js";
import { sameOnWire, type Tell } from "./wire-json.js";

/** Compares what authors promise of an action. */
export function comparePromises(older: Contract, newer: Contract, tell: Tell): void {
  const about = { declared: newer.rpc, subject: newer.method };
  const [before, after] = [older.options, newer.options];
  if (before?.idempotent === true && after?.idempotent !== true)
    tell("MESH_IDEMPOTENCY_LOST", about, "was idempotent, and is not: what relies on running it twice breaks");
  if (before?.exclusive === true && after?.exclusive !== true)
    tell("MESH_EXCLUSIVE_LOST", about, "was exclusive, and is not: two attempts may run at once");
  const [undone, undoes] = [before?.inverse ?? "", after?.inverse ?? ""];
  if (undone !== "" && undone !== undoes)
    tell("MESH_INVERSE_CHANGED", about, `was undone by ${undone}, and by ${undoes === "" ? "nothing" : undoes} now`);
}

/** Compares one message of both revisions that travels on `sides`. */
export function compareMessagePromises(
  before: DescMessage,
  after: DescMessage,
  { sides, newer, tell }: { sides: readonly Side[]; newer: Contract; tell: Tell },
): void {
  const whole = { declared: after, subject: after.typeName };
  tellRules(compareRules(before, after), whole, sides, tell);
  const oneofs = new Map(before.oneofs.map((oneof) => [oneof.name, oneof]));
  for (const oneof of after.oneofs) {
    const old = oneofs.get(oneof.name);
    const about = { declared: oneof, subject: `${after.typeName}.${oneof.name}` };
    if (old) tellRules(compareRules(old, oneof), about, sides, tell);
    else if (hasOwnRules(oneof) && sides.includes("input"))
      tell("MESH_CONSTRAINT_TIGHTENED", about, "is new and has rules: earlier inputs may break them");
  }
  const fields = new Map(before.fields.map((field) => [field.number, field]));
  const added = after.fields.filter((field) => !fields.has(field.number));
  if (sides.includes("input")) tellRequired(added, after, newer, tell);
  for (const field of after.fields) {
    const old = fields.get(field.number);
    if (old) compareFieldPromises(old, field, sides, tell);
  }
}

function compareFieldPromises(before: DescField, after: DescField, sides: readonly Side[], tell: Tell): void {
  const about = { declared: after, subject: `${after.parent.typeName}.${after.name}`, field: after };
  if (isSensitive(before) && !isSensitive(after))
    tell("MESH_SENSITIVITY_REMOVED", about, "was sensitive, and would be shown: in consoles, logs and errors");
  const [old, now] = [targetOf(before), targetOf(after)];
  if (!sameOnWire(old, now)) return; // told by the rules of wire and JSON
  if (signOf(old) !== signOf(now)) {
    const types = `was ${describeTarget(old)}, and is ${describeTarget(now)}`;
    tell("MESH_FIELD_SAME_SIGN", about, `${types}: large and negative numbers read as others`);
  }
  tellRules(compareRules(before, after), about, sides, tell);
}

function tellRules(
  { tightened, loosened }: ReturnType<typeof compareRules>,
  about: Parameters<Tell>[1],
  sides: readonly Side[],
  tell: Tell,
): void {
  const list = (names: readonly string[]) => names.slice(0, namesShownMax).join(", ");
  if (tightened.length > 0 && sides.includes("input"))
    tell("MESH_CONSTRAINT_TIGHTENED", about, `takes less than before (${list(tightened)}): earlier inputs are refused`);
  if (loosened.length > 0 && sides.includes("output"))
    tell("MESH_CONSTRAINT_LOOSENED", about, `may hold more than before (${list(loosened)}): earlier readers refuse it`);
}

/** Rules that are named in one sentence. */
const namesShownMax = 5;

/** Fields that are new and refuse to be missing: earlier inputs don't have them. */
function tellRequired(added: readonly DescField[], after: DescMessage, newer: Contract, tell: Tell): void {
  if (!added.some(hasOwnRules)) return;
  const result = createValidator({ registry: newer.registry }).validate(after, create(after));
  if (result.kind === "error") return; // the rules themselves are refused where contracts are read
  for (const violation of result.kind === "invalid" ? result.violations : []) {
    const [first] = violation.field;
    const field = first?.kind === "field" ? added.find((one) => one.number === first.number) : undefined;
    if (!field) continue;
    const about = { declared: field, subject: `${after.typeName}.${field.name}`, field };
    tell("MESH_FIELD_REQUIRED", about, `is new, and inputs without it are refused: ${violation.message}`);
  }
}

/** Whether values of the field are shown nowhere: the option (taskmesh.v1.sensitive). */
export function isSensitive(field: DescField): boolean {
  const extensions = meshFiles().get("taskmesh/v1/options.proto")?.extensions;
  const extension = extensions?.find((candidate) => candidate.name === "sensitive");
  const { options } = field.proto;
  if (extension === undefined || options === undefined || !hasExtension(options, extension)) return false;
  return getExtension(options, extension) === true;
}

const unsigned = new Set([ScalarType.UINT32, ScalarType.UINT64, ScalarType.FIXED32, ScalarType.FIXED64]);

/** Which numbers of the field have no sign: of a map its keys and values, of a list its items. */
function signOf(target: Target): string {
  const of = (scalar: ScalarType) => (unsigned.has(scalar) ? "u" : "s");
  if (target.kind === "scalar") return of(target.scalar);
  if (target.kind === "list") return signOf(target.item);
  return target.kind === "map" ? of(target.key) + signOf(target.item) : "";
}

/** An enum that was open took numbers that it does not know. */
export function compareOpenness(before: DescEnum, after: DescEnum, tell: Tell): void {
  if (before.open && !after.open)
    tell("MESH_ENUM_CLOSED", { declared: after, subject: after.typeName }, "took unknown values, and takes none now");
}
