/** Expressions as values of the builder: paths that were followed by property access, and CEL text. */
declare const typed: unique symbol;
const textOf: unique symbol = Symbol("taskmesh.expression");

/** An expression whose value has the type T. Made by reading references and by `cel`. */
export interface Expression<out T> {
  readonly [typed]: T;
}

interface Known {
  text: string;
  /** Binds as tightly as a name does. */
  path: boolean;
}

/** What an expression says; undefined if `value` is none. */
export function knownOf(value: unknown): Known | undefined {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return undefined;
  return (value as { [textOf]?: Known })[textOf];
}

const isName = (text: string): boolean => /^[A-Za-z_][A-Za-z0-9_]*$/.test(text);

/** A reference to `path`; `nameOf` makes of a property of generated code the name that the .proto file gives it. */
export function reference(path: string, nameOf: (property: string) => string): Expression<never> {
  const known: Known = { text: path, path: true };
  return new Proxy(Object.freeze({}), {
    get(_target, property) {
      if (property === textOf) return known;
      if (property === Symbol.toPrimitive || property === "toJSON" || property === "then")
        return property === Symbol.toPrimitive ? refuseText : undefined;
      if (typeof property === "symbol") return undefined;
      if (/^\d+$/.test(property)) return reference(`${path}[${property}]`, nameOf);
      const name = nameOf(property);
      return reference(isName(name) ? `${path}.${name}` : `${path}[${JSON.stringify(name)}]`, nameOf);
    },
  }) as Expression<never>;

  function refuseText(): never {
    throw new TypeError(`${path} has no value while the chain is being built; write the expression with cel\`…\``);
  }
}

/**
 * A CEL expression: cel`size(${fetch.output.text}) > 10`. References and other expressions in it stand for themselves; texts, numbers, lists
 * and maps are written as CEL literals. Its type is what the place where it is used asks for, or what is said: cel<boolean>`…`. The mesh checks it when
 * the chain is saved.
 */
// biome-ignore lint/suspicious/noExplicitAny: CEL text has no type of its own here; the mesh checks it.
export function cel<T = any>(parts: TemplateStringsArray, ...values: readonly unknown[]): Expression<T> {
  let text = parts[0]!;
  values.forEach((value, index) => {
    text += celText(value) + parts[index + 1]!;
  });
  const known: Known = { text: text.trim(), path: false };
  return Object.freeze({ [textOf]: known }) as unknown as Expression<T>;
}

/** A value as CEL. */
export function celText(value: unknown): string {
  const known = knownOf(value);
  if (known) return known.path ? known.text : `(${known.text})`;
  switch (typeof value) {
    case "string":
      return JSON.stringify(value);
    case "boolean":
    case "bigint":
      return String(value);
    case "number":
      if (Number.isFinite(value)) return String(value);
      break;
    case "object":
      if (value instanceof Uint8Array) return `b"${[...value].map(escapeByte).join("")}"`;
      if (value instanceof Date) return `timestamp(${JSON.stringify(value.toISOString())})`;
      if (Array.isArray(value)) return `[${value.map(celText).join(", ")}]`;
      if (value !== null) {
        const entries = Object.entries(value).filter(([, item]) => item !== undefined);
        return `{${entries.map(([key, item]) => `${JSON.stringify(key)}: ${celText(item)}`).join(", ")}}`;
      }
  }
  throw new TypeError(`${String(value)} can't be written as CEL`);
}

const escapeByte = (byte: number): string => `\\x${byte.toString(16).padStart(2, "0")}`;

/** Whether an expression stands anywhere in the value. */
export function holdsExpression(value: unknown): boolean {
  if (knownOf(value)) return true;
  if (typeof value !== "object" || value === null || value instanceof Uint8Array || value instanceof Date) return false;
  return Object.values(value).some(holdsExpression);
}
