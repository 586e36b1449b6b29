/**
 * Changes of contracts with the verdict on each, both ways: the table that the rules are held to.
 *
 * A body is placed into Order (the input), Receipt (the output) or Part (in both); `file` is a whole file but for its package.
 */

/** One pair of revisions: what breaks on the way from the first to the second, and on the way back. */
export interface Change {
  name: string;
  before: string;
  after: string;
  /** "RULE Subject", in any order; the subject without its package. */
  forth: string[];
  back: string[];
}

const imports = `import "buf/validate/validate.proto"; import "taskmesh/v1/options.proto";`;
const frame = (order: string, receipt: string, part: string, more = "", syntax = `syntax = "proto3"`) =>
  `${syntax}; package PACKAGE; ${imports} service O { rpc Do(Order) returns (Receipt); }
   message Order { Part part = 90; ${order} } message Receipt { Part part = 90; ${receipt} } message Part { ${part} } ${more}`;

type Bodies = [before: string, after: string];
type Verdicts = [forth: string[], back: string[]];
const change =
  (make: (body: string) => string) =>
  (name: string, [before, after]: Bodies, [forth, back]: Verdicts) => ({
    name,
    before: make(before),
    after: make(after),
    forth,
    back,
  });
export const order = change((body) => frame(body, "", ""));
export const receipt = change((body) => frame("", body, ""));
export const part = change((body) => frame("", "", body));
export const enums = change((body) => frame("Kind kind = 1;", "", "", `enum Kind { ${body} }`));
export const proto2 = change((body) =>
  frame("", "", "", "", `syntax = "proto2"`)
    .replace("Part part = 90;", `${body}`)
    .replaceAll("Part part = 90;", "optional Part part = 90;"),
);
export const edition = change((body) => frame("", "", body, "", `edition = "2023"`));
export const rpc = change((body) => frame("", "", "").replace("rpc Do(Order) returns (Receipt);", body));
export const more = change((body) => frame("Line line = 1;", "", "", body));

export const gone = (subject: string) => [
  `FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED ${subject}`,
  `FIELD_NO_DELETE_UNLESS_NAME_RESERVED ${subject}`,
];
export const type = (subject: string) => [`FIELD_WIRE_JSON_COMPATIBLE_TYPE ${subject}`];
export const cardinality = (subject: string) => [`FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY ${subject}`];
export const sign = (subject: string) => [`MESH_FIELD_SAME_SIGN ${subject}`];
export const tight = (subject: string) => [`MESH_CONSTRAINT_TIGHTENED ${subject}`];
export const loose = (subject: string) => [`MESH_CONSTRAINT_LOOSENED ${subject}`];
export const oneof = (...subjects: string[]) => subjects.map((subject) => `FIELD_SAME_ONEOF ${subject}`);
export const none: string[] = [];

/** A scalar that becomes another one, both ways alike. */
export const retyped = (from: string, to: string) =>
  part(`a field from ${from} to ${to}`, [`${from} a = 1;`, `${to} a = 1;`], [type("Part.a"), type("Part.a")]);
export const resigned = (from: string, to: string) =>
  part(`a field from ${from} to ${to}`, [`${from} a = 1;`, `${to} a = 1;`], [sign("Part.a"), sign("Part.a")]);
/** A rule of an input that becomes stricter, and the same rule of an output, where the way back is the break. */
export const limited = (field: string, laxer: string, stricter: string) => {
  const body = (rule: string) => `${field} a = 1${rule === "" ? "" : ` [(buf.validate.field).${rule}]`};`;
  const bodies: Bodies = [body(laxer), body(stricter)];
  const what = `${field}: ${laxer || "no rule"} to ${stricter}`;
  return [
    order(`a stricter input, ${what}`, bodies, [tight("Order.a"), none]),
    receipt(`a stricter output, ${what}`, bodies, [none, loose("Receipt.a")]),
  ];
};
/** Rules without an order. */
export const otherwise = (field: string, one: string, other: string) => {
  const bodies: Bodies = [
    `${field} a = 1 [(buf.validate.field).${one}];`,
    `${field} a = 1 [(buf.validate.field).${other}];`,
  ];
  return [
    order(`another input, ${field}: ${one} to ${other}`, bodies, [tight("Order.a"), tight("Order.a")]),
    receipt(`another output, ${field}: ${one} to ${other}`, bodies, [loose("Receipt.a"), loose("Receipt.a")]),
  ];
};
