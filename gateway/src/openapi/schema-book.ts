/**
 * The named schemas of a document. A type is there once, under its full name.
 *
 * Contracts may bring different types of one name, since each keeps its own files. Whoever comes first keeps the plain names; the types of
 * the other contract have the beginning of its fingerprint behind theirs, all of them, so that its schemas fit together.
 */
import type { DescEnum, DescMessage, JsonValue } from "@bufbuild/protobuf";
import { enumSchema, isDescribedInPlace, messageSchema, type Schema, type SchemaScope } from "./schema.js";

/** Characters of a fingerprint that tell types of one name apart. */
const SUFFIX_LENGTH = 8;

export interface SchemaSource {
  /** Fingerprint of the contract that the types belong to. */
  id: string;
  comment?: SchemaScope["comment"];
  /** What stands for a type instead of its own schema. */
  instead?: ((desc: DescMessage | DescEnum) => Schema | undefined) | undefined;
}

export class SchemaBook {
  private readonly schemas = new Map<string, Schema>();

  /** Adds what messages of `roots` are made of, and returns the scope in which fields of these types are described. */
  add(roots: readonly DescMessage[], source: SchemaSource): SchemaScope {
    const types = reachable(roots, source);
    const plain = this.scope(source, "");
    const made = types.map((type) => [type.typeName, schemaOf(type, plain)] as const);
    const fits = made.every(([name, schema]) => {
      const other = this.schemas.get(name);
      return other === undefined || withoutWords(other) === withoutWords(schema);
    });
    if (fits) {
      for (const [name, schema] of made) if (!this.schemas.has(name)) this.schemas.set(name, schema);
      return plain;
    }
    const suffix = `.${source.id.slice(0, SUFFIX_LENGTH)}`;
    const own = this.scope(source, suffix);
    for (const type of types) this.schemas.set(type.typeName + suffix, schemaOf(type, own));
    return own;
  }

  /** Adds a schema that no descriptor has. */
  set(name: string, schema: Schema): void {
    this.schemas.set(name, schema);
  }

  get(name: string): Schema | undefined {
    return this.schemas.get(name);
  }

  /** Takes a schema out that served to make others. */
  remove(name: string): void {
    this.schemas.delete(name);
  }

  /** Every schema by name. */
  entries(): [string, Schema][] {
    return [...this.schemas];
  }

  private scope({ comment, instead }: SchemaSource, suffix: string): SchemaScope {
    const ref = (desc: DescMessage | DescEnum): Schema => instead?.(desc) ?? refTo(desc.typeName + suffix);
    return comment === undefined ? { ref } : { ref, comment };
  }
}

/** A reference to a named schema. */
export const refTo = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });

const schemaOf = (type: DescMessage | DescEnum, scope: SchemaScope): Schema =>
  type.kind === "message" ? messageSchema(type, scope) : enumSchema(type, scope);

function reachable(roots: readonly DescMessage[], { instead }: SchemaSource): (DescMessage | DescEnum)[] {
  const found = new Set<DescMessage | DescEnum>();
  const open: (DescMessage | DescEnum)[] = [...roots];
  for (let type = open.pop(); type !== undefined; type = open.pop()) {
    if (found.has(type) || isDescribedInPlace(type) || instead?.(type) !== undefined) continue;
    found.add(type);
    if (type.kind === "enum") continue;
    for (const field of type.fields) open.push(...[field.message, field.enum].filter((one) => one !== undefined));
  }
  return [...found].sort((a, b) => (a.typeName < b.typeName ? -1 : 1));
}

/** Comments are no difference: some builds embed them and some don't. */
function withoutWords(schema: JsonValue): string {
  return JSON.stringify(schema, (key, value: unknown) =>
    key === "description" && typeof value === "string" ? undefined : value,
  );
}
