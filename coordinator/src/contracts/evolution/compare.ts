/**
 * Whether a contract may follow another under the same name. Within a major version (the package) contracts evolve: new fields, values and
 * types; what is removed leaves its number and name reserved. Pure: the same pair always gives the same answer, in the same order.
 */
import type { Contract } from "../contract.js";
import { compareMessagePromises, compareOpenness, comparePromises } from "./mesh-rules.js";
import { fileOf, lineOf, reachedTypes } from "./places.js";
import type { Side, Violation } from "./violation.js";
import { compareEnums, compareMessages, compareRpcs, type Tell } from "./wire-json.js";

const bothSides: readonly Side[] = ["input", "output"];

/** Everything in which `newer` breaks what was made for `older`; empty: it may follow. */
export function compareContracts(older: Contract, newer: Contract): Violation[] {
  const found: Violation[] = [];
  const tellOn =
    (sides: readonly Side[]): Tell =>
    (rule, { declared, subject, field }, message) => {
      const type = field?.parent.typeName ?? "";
      const number = field?.number ?? 0;
      found.push({ rule, file: fileOf(declared), line: lineOf(declared), subject, type, number, sides, message });
    };
  compareRpcs(older, newer, tellOn(bothSides));
  comparePromises(older, newer, tellOn(bothSides));
  const [before, after] = [reachedTypes(older), reachedTypes(newer)];
  for (const [name, { type: now, sides: sidesNow }] of after) {
    const known = before.get(name);
    if (known === undefined) continue;
    const old = known.type;
    const sides = bothSides.filter((side) => sidesNow.includes(side) && known.sides.includes(side));
    const tell = tellOn(sides.length > 0 ? sides : sidesNow);
    if (old.kind === "message" && now.kind === "message") {
      compareMessages(old, now, tell);
      compareMessagePromises(old, now, { sides, newer, tell });
    } else if (old.kind === "enum" && now.kind === "enum") {
      compareEnums(old, now, tell);
      compareOpenness(old, now, tell);
    } else {
      const kinds = { message: "a message", enum: "an enum" };
      const about = { declared: now, subject: name };
      tell("FIELD_WIRE_JSON_COMPATIBLE_TYPE", about, `was ${kinds[old.kind]}, and is ${kinds[now.kind]}`);
    }
  }
  return found;
}

/** A field that a newer revision lacks, in a type that both have. */
export interface RemovedField {
  type: string;
  name: string;
  number: number;
  sides: readonly Side[];
  /** Where a violation about it is to point. */
  file: string;
  line: number;
}

/** Fields that are gone, whether they are reserved or not: whoever still uses them loses something. */
export function removedFields(older: Contract, newer: Contract): RemovedField[] {
  const before = reachedTypes(older);
  const gone: RemovedField[] = [];
  for (const [name, { type: now }] of reachedTypes(newer)) {
    const known = before.get(name);
    if (known?.type.kind !== "message" || now.kind !== "message") continue;
    const numbers = new Set(now.fields.map((field) => field.number));
    for (const field of known.type.fields) {
      if (numbers.has(field.number)) continue;
      const place = { file: fileOf(now), line: lineOf(now) };
      gone.push({ type: name, name: field.name, number: field.number, sides: known.sides, ...place });
    }
  }
  return gone;
}
