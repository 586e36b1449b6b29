/** Whether whoever knows one revision of a type understands all of another: every field by number, name and type, to any depth. */
import type { DescEnum, DescField, DescMessage } from "@bufbuild/protobuf";

/** Whether every field of `theirs` is one of `mine`. */
export function knowsMessage(mine: DescMessage, theirs: DescMessage): boolean {
  const seen = new Set<string>();
  const open: [DescMessage, DescMessage][] = [[mine, theirs]];
  for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
    const [known, other] = pair;
    const key = `${known.typeName} ${other.typeName}`;
    if (seen.has(key)) continue;
    seen.add(key);
    const fields = new Map(known.fields.map((field) => [field.number, field]));
    for (const field of other.fields) {
      const own = fields.get(field.number);
      if (!own || !knowsField(own, field)) return false;
      if (own.message && field.message) open.push([own.message, field.message]);
    }
  }
  return true;
}

/** The same of one field, not looking into the message that it may hold. */
export function knowsField(mine: DescField, theirs: DescField): boolean {
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
