/**
 * Whether a worker of one contract revision can run steps that are pinned to another revision of the same method.
 *
 * It can if it knows every field of the pinned revision, by number, name and type, in what it reads and in what it writes: then nothing
 * that a caller sends is lost, and nothing that the caller waits for is missing. Fields that only the worker knows do no harm: they
 * read as unset, and callers skip what they don't know. So workers that are upgraded go on with the runs and chains of before.
 */
import type { DescEnum, DescField, DescMessage } from "@bufbuild/protobuf";
import type { Contract } from "../contracts/contract.js";

/** Whether workers of `worker` can run what is pinned to `pinned`. */
export function contractServes(worker: Contract, pinned: Contract): boolean {
  if (worker.fingerprint === pinned.fingerprint) return true;
  if (worker.method !== pinned.method) return false;
  return knowsMessage(worker.input, pinned.input) && knowsMessage(worker.output, pinned.output);
}

function knowsMessage(worker: DescMessage, pinned: DescMessage): boolean {
  const seen = new Set<string>();
  const open: [DescMessage, DescMessage][] = [[worker, pinned]];
  for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
    const [mine, theirs] = pair;
    const key = `${mine.typeName} ${theirs.typeName}`;
    if (seen.has(key)) continue;
    seen.add(key);
    const fields = new Map(mine.fields.map((field) => [field.number, field]));
    for (const field of theirs.fields) {
      const known = fields.get(field.number);
      if (!known || !sameField(known, field)) return false;
      if (known.message && field.message) open.push([known.message, field.message]);
    }
  }
  return true;
}

function sameField(mine: DescField, theirs: DescField): boolean {
  if (mine.name !== theirs.name || mine.fieldKind !== theirs.fieldKind || mine.scalar !== theirs.scalar) return false;
  if (mine.oneof?.name !== theirs.oneof?.name) return false;
  if (mine.fieldKind === "map" && theirs.fieldKind === "map" && mine.mapKey !== theirs.mapKey) return false;
  if (mine.fieldKind === "list" && theirs.fieldKind === "list" && mine.listKind !== theirs.listKind) return false;
  if (mine.fieldKind === "map" && theirs.fieldKind === "map" && mine.mapKind !== theirs.mapKind) return false;
  return mine.enum === undefined || theirs.enum === undefined || knowsEnum(mine.enum, theirs.enum);
}

function knowsEnum(mine: DescEnum, theirs: DescEnum): boolean {
  const names = new Map(mine.values.map((value) => [value.number, value.name]));
  return mine.open === theirs.open && theirs.values.every((value) => names.get(value.number) === value.name);
}
