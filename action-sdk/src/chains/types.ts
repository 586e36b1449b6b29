/**
 * The types behind the builder: what a message of generated code offers to expressions, and what may be given for its fields.
 *
 * A oneof, which ts-proto generates as one property of `{ $case, value }`, is read and given by its members' names, as in YAML.
 */
import type { Expression } from "./expression.js";

/** Values that have no fields of their own. */
type Leaf = string | number | bigint | boolean | Uint8Array | Date;

type IsAny<T> = 0 extends 1 & T ? true : false;
type Case = { $case: string; value: unknown };
type Present<T> = NonNullable<T>;

/** The properties of a message that are oneofs. */
type OneofKeys<M> = {
  [K in keyof M]-?: IsAny<M[K]> extends true ? never : Present<M[K]> extends Case ? K : never;
}[keyof M];
type Cases<M> = Extract<Present<M[OneofKeys<M>]>, Case>;

/** The fields of a message by name, members of oneofs among them. */
export type Fields<M> = { [K in Exclude<keyof M, OneofKeys<M> | "$unknown">]-?: Present<M[K]> } & {
  [C in Cases<M> as C["$case"]]: Present<C["value"]>;
};

/** A reference into a value whose type only the mesh knows. */
export interface UntypedRef extends Expression<never> {
  readonly [field: string]: UntypedRef;
}

/** A reference to a value: an expression that is a path, whose fields, entries and items are references too. */
export type Ref<T> =
  IsAny<T> extends true
    ? UntypedRef
    : Expression<T> &
        (T extends Leaf
          ? unknown
          : T extends readonly (infer E)[]
            ? { readonly [index: number]: Ref<E> }
            : { readonly [K in keyof Fields<T>]: Ref<Fields<T>[K]> });

/** Messages of generated code that are no JSON objects: their literals are written by `cel`. */
type TimeMessage = { seconds: bigint; nanos: number };

/** A value written out. */
type Literal<T> = T extends Leaf
  ? T
  : T extends TimeMessage
    ? never
    : T extends readonly (infer E)[]
      ? readonly Given<E>[]
      : string extends keyof T
        ? { readonly [key: string]: Given<T[string & keyof T]> }
        : { readonly [K in keyof T]?: Literal<Present<T[K]>> };

/** What may be given for a field: an expression of its type, or a literal. Lists and maps may hold expressions. */
export type Given<T> = IsAny<T> extends true ? unknown : Expression<T> | Literal<Present<T>>;

/** What may be given for a message: any of its fields. */
export type GivenFields<M> = { readonly [K in keyof Fields<M>]?: Given<Fields<M>[K]> | undefined };

/** Types of a contract that is declared with the chain: field name to type, as in YAML. */
export type FieldTypes = Readonly<Record<string, string>>;

type Narrow = "int32" | "uint32" | "sint32" | "fixed32" | "sfixed32" | "float" | "double";
type Wide = "int64" | "uint64" | "sint64" | "fixed64" | "sfixed64";

// biome-ignore lint/suspicious/noExplicitAny: a message or enum by its name; only the mesh knows it.
type ByName = any;

/** The TypeScript type of a declared field. */
export type TypeOf<S extends string> = S extends "string"
  ? string
  : S extends "bool"
    ? boolean
    : S extends "bytes"
      ? Uint8Array
      : S extends Narrow
        ? number
        : S extends Wide
          ? bigint
          : S extends `repeated ${infer E}`
            ? TypeOf<E>[]
            : S extends `map<${string},${infer V}>`
              ? { [key: string]: TypeOf<Trimmed<V>> }
              : ByName;

type Trimmed<S extends string> = S extends ` ${infer R}` ? Trimmed<R> : S;

/** The message that declared fields make up. */
export type MessageOf<F extends FieldTypes> = { [K in keyof F]: TypeOf<F[K]> };
