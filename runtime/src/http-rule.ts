/**
 * The HTTP requests that the author of an rpc declared with google.api.http, checked against its messages.
 *
 * Each binding stands for itself: one that can't be served takes nothing from the others. What is wrong with it is a sentence for its
 * author, shown where the worker registers and in the list of routes.
 */
import type { DescField, DescMessage, DescMethod } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { hasOwnJsonForm } from "./json-faults.js";
import { nearestName } from "./nearest-name.js";
import { type PathTemplate, parsePathTemplate, type TemplateVariable } from "./path-template.js";

/** A variable of the path with the fields that lead to its value. */
export interface PathVariable extends TemplateVariable {
  fields: readonly DescField[];
}

/** One HTTP request that calls the rpc. */
export interface HttpBinding {
  /** "GET", "POST", …; "*" for any. */
  verb: string;
  template: PathTemplate;
  variables: readonly PathVariable[];
  /** The whole message, one of its fields, or undefined: the request has no body. */
  body: "*" | DescField | undefined;
  /** The field of the response that is the answer; undefined: all of it. */
  responseBody: DescField | undefined;
}

/** A declared binding that can't be served, and why. */
export interface HttpRuleFault {
  verb: string;
  path: string;
  message: string;
}

export interface HttpBindings {
  bindings: HttpBinding[];
  faults: HttpRuleFault[];
}

/** A google.api.HttpRule as it was written. */
interface HttpRule {
  verb: string;
  path: string;
  body: string;
  responseBody: string;
  additional: HttpRule[];
}

/** Number of google.api.http in google.protobuf.MethodOptions. */
const HTTP_EXTENSION = 72295728;
/** More bindings of one rpc are surely a mistake. */
const BINDINGS_MAX = 100;

/** What the author of `rpc` declared, in order; empty without google.api.http. Never throws. */
export function readHttpBindings(rpc: DescMethod): HttpBindings {
  const found: HttpBindings = { bindings: [], faults: [] };
  // The option is read from the bytes that the descriptor kept: contracts may leave annotations.proto out of their set.
  const records = rpc.proto.options?.$unknown?.filter(({ no }) => no === HTTP_EXTENSION) ?? [];
  if (records.length === 0) return found;
  let rule: HttpRule;
  try {
    rule = emptyRule();
    for (const { data } of records) readRule(new BinaryReader(data).bytes(), rule);
  } catch {
    found.faults.push({ verb: "", path: "", message: "the bytes of google.api.http are damaged" });
    return found;
  }
  const rules = [rule, ...rule.additional].slice(0, BINDINGS_MAX);
  for (const one of rules) {
    const nested = one !== rule && one.additional.length > 0;
    const result = nested ? "additional_bindings can't have additional_bindings" : compile(one, rpc);
    if (typeof result === "string") found.faults.push({ verb: one.verb, path: one.path, message: result });
    else found.bindings.push(result);
  }
  return found;
}

const emptyRule = (): HttpRule => ({ verb: "", path: "", body: "", responseBody: "", additional: [] });

/** Field numbers of google.api.HttpRule that hold a path, with the verbs that they mean. */
const verbs: Readonly<Record<number, string>> = { 2: "GET", 3: "PUT", 4: "POST", 5: "DELETE", 6: "PATCH" };

function readRule(bytes: Uint8Array, rule: HttpRule): HttpRule {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    const verb = verbs[number];
    if (wireType !== WireType.LengthDelimited) reader.skip(wireType, number);
    else if (verb !== undefined) Object.assign(rule, { verb, path: reader.string() });
    else if (number === 7) rule.body = reader.string();
    else if (number === 8) Object.assign(rule, readCustom(reader.bytes()));
    else if (number === 11) rule.additional.push(readRule(reader.bytes(), emptyRule()));
    else if (number === 12) rule.responseBody = reader.string();
    else reader.skip(wireType, number);
  }
  return rule;
}

/** google.api.CustomHttpPattern: any other method. */
function readCustom(bytes: Uint8Array): { verb: string; path: string } {
  const reader = new BinaryReader(bytes);
  const custom = { verb: "", path: "" };
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (number === 1) custom.verb = reader.string();
    else if (number === 2) custom.path = reader.string();
    else reader.skip(wireType, number);
  }
  return custom;
}

function compile(rule: HttpRule, rpc: DescMethod): HttpBinding | string {
  const { verb } = rule;
  if (verb === "") return "the rule names no method and path";
  if (!/^(\*|[A-Z][A-Z-]{0,31})$/.test(verb)) return `${JSON.stringify(verb)} is no HTTP method: write it in capitals`;
  const parsed = parsePathTemplate(rule.path);
  if (!parsed.ok) return parsed.message;
  const variables: PathVariable[] = [];
  for (const variable of parsed.template.variables) {
    const fields = resolvePathField(rpc.input, variable.fieldPath);
    if (typeof fields === "string") return fields;
    variables.push({ ...variable, fields });
  }
  const body = rule.body === "" || rule.body === "*" ? undefined : fieldOf(rpc.input, rule.body, "body");
  if (typeof body === "string") return body;
  if (rule.body !== "" && (verb === "GET" || verb === "HEAD")) return `a ${verb} request has no body: leave "body" out`;
  if (body !== undefined && variables.some(({ fields }) => fields.length === 1 && fields[0] === body)) {
    return `${body.name} is in the path and can't be the body too`;
  }
  const responseBody = rule.responseBody === "" ? undefined : fieldOf(rpc.output, rule.responseBody, "response_body");
  if (typeof responseBody === "string") return responseBody;
  return { verb, template: parsed.template, variables, body: rule.body === "*" ? "*" : body, responseBody };
}

function fieldOf(desc: DescMessage, name: string, option: string): DescField | string {
  return desc.fields.find((field) => field.name === name) ?? `${option}: ${noField(desc, name)}`;
}

function noField(desc: DescMessage, name: string): string {
  const nearest = nearestName(
    name,
    desc.fields.map((field) => field.name),
  );
  const hint = nearest === undefined ? "" : `; did you mean ${JSON.stringify(nearest)}?`;
  return `${desc.typeName} has no field ${JSON.stringify(name)}${hint}`;
}

/** The fields on the way to a variable's value, or why it can't be in a path. */
function resolvePathField(input: DescMessage, path: readonly string[]): DescField[] | string {
  const fields: DescField[] = [];
  let desc: DescMessage | undefined = input;
  for (const name of path) {
    const before = fields.map((field) => field.name).join(".");
    if (desc === undefined) return `${before} is no message: it has no field ${JSON.stringify(name)}`;
    const field: DescField | undefined = desc.fields.find((candidate) => candidate.name === name);
    if (field === undefined) return noField(desc, name);
    if (field.fieldKind === "list" || field.fieldKind === "map") {
      return `${path.join(".")}: a repeated field can't be in a path`;
    }
    fields.push(field);
    desc = field.message !== undefined && !hasOwnJsonForm(field.message) ? field.message : undefined;
  }
  const last = fields.at(-1);
  if (last === undefined || isTextual(last)) return fields;
  return `${path.join(".")} is a message: name one of its fields`;
}

/** Whether one text can be the whole value of the field (of one item, if it is a list). */
export function isTextual(field: DescField): boolean {
  if (field.fieldKind === "map") return false;
  if (field.message === undefined) return true;
  return hasOwnJsonForm(field.message) && !structured.has(field.message.name);
}

/** Well-known types of any form: no single text tells which. */
const structured = new Set(["Any", "Struct", "Value", "ListValue"]);
