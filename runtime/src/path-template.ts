/**
 * Path templates of google.api.http: `/v1/{name=shelves/*}/books/{book.id}:read`.
 *
 *   Template = "/" Segments [ ":" literal ]      Segments = Segment { "/" Segment }
 *   Segment  = "*" | "**" | literal | "{" FieldPath [ "=" Segments ] "}"
 *
 * `*` is one segment, `**` any number of them and only the last. Pure text: which fields the variables name is checked in http-rule.ts.
 */

/** One segment of a path: a literal, decoded; or a wildcard. */
export type TemplateSegment = { kind: "literal"; text: string } | { kind: "one" } | { kind: "rest" };

/** A variable: the field that it fills and the segments that it takes. */
export interface TemplateVariable {
  /** Names from the request message to the field. */
  fieldPath: readonly string[];
  /** Index of its first segment, and of the first behind it. */
  from: number;
  to: number;
}

export interface PathTemplate {
  /** As it was written. */
  text: string;
  segments: readonly TemplateSegment[];
  variables: readonly TemplateVariable[];
  /** What stands behind the last colon, "" for none. */
  verb: string;
  /** Equal for templates that match the same paths. */
  shape: string;
}

/** A template, or what is wrong with it. */
export type ParsedTemplate = { ok: true; template: PathTemplate } | { ok: false; message: string };

const TEMPLATE_LENGTH_MAX = 1_024;
const identifier = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** What a URL can hold in a path besides `/`, with escapes. A colon begins a verb. */
const literal = /^(?:[A-Za-z0-9\-._~!$&'()+,;=@]|%[0-9A-Fa-f]{2})+$/;

/** Reads a template. Never throws. */
export function parsePathTemplate(text: string): ParsedTemplate {
  if (text.length > TEMPLATE_LENGTH_MAX) return fault(`the path has more than ${TEMPLATE_LENGTH_MAX} characters`);
  if (!text.startsWith("/")) return fault(`the path ${JSON.stringify(text)} does not begin with "/"`);
  const { path, verb } = splitVerb(text.slice(1));
  if (verb !== undefined && !literal.test(verb)) return fault(`":${verb}" at the end of the path is no verb`);
  const segments: TemplateSegment[] = [];
  const variables: TemplateVariable[] = [];
  for (const part of splitOutsideBraces(path)) {
    const message = part.startsWith("{") ? addVariable(part, segments, variables) : addSegment(part, segments);
    if (message !== undefined) return fault(message);
  }
  const rest = segments.findIndex(({ kind }) => kind === "rest");
  if (rest >= 0 && rest < segments.length - 1) return fault('"**" must be the last segment of the path');
  const decodedVerb = verb === undefined ? "" : decode(verb);
  if (decodedVerb === undefined || segments.some((segment) => segment.kind === "literal" && segment.text === "")) {
    return fault("an escape in the path is not valid UTF-8");
  }
  const shape = `/${segments.map(shapeOf).join("/")}${decodedVerb === "" ? "" : `:${encodeURIComponent(decodedVerb)}`}`;
  return { ok: true, template: { text, segments, variables, verb: decodedVerb, shape } };
}

const fault = (message: string): ParsedTemplate => ({ ok: false, message });

/** The verb is behind the last colon outside of braces; undefined without one. */
function splitVerb(text: string): { path: string; verb: string | undefined } {
  const colon = text.lastIndexOf(":");
  if (colon < 0 || colon < text.lastIndexOf("}")) return { path: text, verb: undefined };
  return { path: text.slice(0, colon), verb: text.slice(colon + 1) };
}

function splitOutsideBraces(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let from = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === "{") depth++;
    else if (text[at] === "}") depth--;
    else if (text[at] === "/" && depth === 0) {
      parts.push(text.slice(from, at));
      from = at + 1;
    }
  }
  parts.push(text.slice(from));
  return parts;
}

function addVariable(part: string, segments: TemplateSegment[], variables: TemplateVariable[]): string | undefined {
  if (!part.endsWith("}") || part.indexOf("{", 1) >= 0) {
    return `${JSON.stringify(part)} is no variable such as {name} or {name=shelves/*}`;
  }
  const body = part.slice(1, -1);
  const equals = body.indexOf("=");
  const name = equals < 0 ? body : body.slice(0, equals);
  const fieldPath = name.split(".");
  if (!fieldPath.every((one) => identifier.test(one))) return `${JSON.stringify(name)} is no path of a field`;
  if (variables.some((other) => other.fieldPath.join(".") === name)) return `{${name}} stands in the path twice`;
  const from = segments.length;
  for (const one of equals < 0 ? ["*"] : body.slice(equals + 1).split("/")) {
    const message = addSegment(one, segments);
    if (message !== undefined) return message;
  }
  variables.push({ fieldPath, from, to: segments.length });
  return undefined;
}

function addSegment(part: string, segments: TemplateSegment[]): string | undefined {
  if (part === "*") segments.push({ kind: "one" });
  else if (part === "**") segments.push({ kind: "rest" });
  else if (literal.test(part)) segments.push({ kind: "literal", text: decode(part) ?? "" });
  else if (part === "") return "the path has an empty segment";
  else return `${JSON.stringify(part)} is no segment: write a literal, "*", "**" or "{field}"`;
  return undefined;
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

function shapeOf(segment: TemplateSegment): string {
  if (segment.kind === "literal") return encodeURIComponent(segment.text);
  return segment.kind === "one" ? "*" : "**";
}
