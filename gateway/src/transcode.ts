/**
 * From an HTTP request to the JSON form of an rpc's input, as google.api.http says: path variables, body, and what is left as query.
 *
 * Nothing is guessed: a parameter that no field takes, a field that is given twice, and a value that is none of its field's are refused,
 * all of them at once, each by its name. Whether the whole is a valid input is for messageFromJson to say.
 */
import type { DescField, DescMessage, JsonObject, JsonValue } from "@bufbuild/protobuf";
import {
  type HttpBinding,
  hasOwnJsonForm,
  isJsonObject,
  isTextual,
  type JsonPath,
  type JsonViolation,
  nearestName,
  shorten,
} from "@taskmesh/runtime";
import { variableText } from "./path-tree.js";
import type { JsonInput } from "./start.js";
import { textToJson } from "./text-value.js";

/** The parts of a request that a binding reads. */
export interface TranscodeRequest {
  /** Segments of the path as PathTree found them. */
  segments: readonly string[];
  /** What stands behind the question mark, as it was sent. */
  query: string;
  /** The body; undefined if there was none. */
  body: JsonInput | undefined;
}

export type Transcoded = { ok: true; input: JsonInput } | { ok: false; violations: JsonViolation[] };

/** More parameters than this are an attack, not a request. */
const PARAMETERS_MAX = 1_000;
const VIOLATIONS_MAX = 20;

/** Builds the input of the rpc. Never throws. */
export function transcode(binding: HttpBinding, input: DescMessage, request: TranscodeRequest): Transcoded {
  return new Transcoding(binding, input).run(request);
}

class Transcoding {
  private readonly violations: JsonViolation[] = [];
  private readonly lossyIntegers: JsonPath[] = [];
  private root: JsonObject = {};
  /** Paths of the fields that are set by path or query, by names. */
  private readonly set = new Map<string, string>();

  constructor(
    private readonly binding: HttpBinding,
    private readonly input: DescMessage,
  ) {}

  run(request: TranscodeRequest): Transcoded {
    const whole = this.readBody(request.body);
    if (whole !== undefined) return { ok: true, input: whole };
    this.readPath(request.segments);
    this.readQuery(request.query);
    if (this.violations.length > 0) return { ok: false, violations: this.violations.slice(0, VIOLATIONS_MAX) };
    return { ok: true, input: { value: this.root, lossyIntegers: this.lossyIntegers } };
  }

  /** Returns an input that nothing can be added to: it is no object, and is refused as such. */
  private readBody(body: JsonInput | undefined): JsonInput | undefined {
    const { body: target } = this.binding;
    if (body === undefined) return undefined;
    if (target === undefined) {
      this.fault("", "this route takes no body: its input is in the path and the query");
    } else if (target === "*") {
      if (!isJsonObject(body.value)) return body;
      this.root = body.value;
      this.lossyIntegers.push(...body.lossyIntegers);
    } else {
      this.root[target.jsonName] = body.value;
      this.lossyIntegers.push(...body.lossyIntegers.map((path) => [target.jsonName, ...path]));
    }
    return undefined;
  }

  private readPath(segments: readonly string[]): void {
    const { template, variables } = this.binding;
    for (const variable of variables) {
      const name = variable.fieldPath.join(".");
      const value = this.valueOf(variable.fields.at(-1), variableText(variable, template, segments), name);
      if (value === undefined) continue;
      this.put(variable.fields, value, name, "the path");
      this.set.set(keyOf(variable.fields), "the path");
    }
  }

  private readQuery(query: string): void {
    const parts = query === "" ? [] : query.split("&");
    if (parts.length > PARAMETERS_MAX) {
      this.fault("", `more than ${PARAMETERS_MAX} query parameters`);
      return;
    }
    for (const part of parts) {
      if (part === "") continue;
      const equals = part.indexOf("=");
      const name = decodeQuery(equals < 0 ? part : part.slice(0, equals));
      const text = decodeQuery(equals < 0 ? "" : part.slice(equals + 1));
      if (name === undefined || text === undefined) {
        this.fault(shorten(part), "an escape in this query parameter is not valid UTF-8");
      } else this.readParameter(name, text);
    }
  }

  private readParameter(name: string, text: string): void {
    const fields = this.resolve(name);
    if (fields === undefined) return;
    const field = fields.at(-1)!;
    const { body } = this.binding;
    if (body === "*") return this.fault(name, "the whole input of this route is in the body and the path");
    if (body !== undefined && fields[0] === body) return this.fault(name, `${body.jsonName} is in the body`);
    if (!isTextual(field)) return this.fault(name, whyNot(field));
    const key = keyOf(fields);
    const before = this.set.get(key);
    const isList = field.fieldKind === "list";
    if (before !== undefined && (before === "the path" || !isList)) {
      return this.fault(name, before === "the path" ? "is in the path already" : "is given more than once");
    }
    this.set.set(key, "the query");
    const value = this.valueOf(field, text, name);
    if (value === undefined) return;
    if (isList) this.append(fields, value);
    else this.put(fields, value, name, "the query");
  }

  /** The fields that a parameter's name leads through, by their names in the proto or in JSON. */
  private resolve(name: string): DescField[] | undefined {
    const fields: DescField[] = [];
    let desc: DescMessage | undefined = this.input;
    for (const part of name.split(".")) {
      const field: DescField | undefined = desc?.fields.find((one) => one.name === part || one.jsonName === part);
      if (desc === undefined || field === undefined) {
        this.fault(name, unknownParameter(name, part, desc));
        return undefined;
      }
      fields.push(field);
      const leads: boolean = field.fieldKind === "message" && !hasOwnJsonForm(field.message);
      desc = leads ? field.message : undefined;
    }
    return fields;
  }

  private valueOf(field: DescField | undefined, text: string, name: string): JsonValue | undefined {
    const value = field === undefined ? undefined : textToJson(field, text);
    if (value === undefined) return undefined;
    if (value.ok) return value.json;
    this.fault(name, `expected ${value.expected}, found ${JSON.stringify(shorten(text))}`);
    return undefined;
  }

  /** Sets a field. One that the body has too must say the same there. */
  private put(fields: readonly DescField[], value: JsonValue, name: string, from: string): void {
    const holder = this.holderOf(fields);
    if (holder === undefined) return this.fault(name, `is in ${from}, but the body has no object around it`);
    const field = fields.at(-1)!;
    const key = keyIn(holder, field);
    const given = holder[key];
    if (given !== undefined && given !== null && String(given) !== String(value)) {
      return this.fault(name, `the body says otherwise than ${from}`);
    }
    holder[key] = value;
  }

  private append(fields: readonly DescField[], value: JsonValue): void {
    const holder = this.holderOf(fields);
    const field = fields.at(-1)!;
    if (holder === undefined) return;
    const list = holder[field.jsonName];
    if (Array.isArray(list)) list.push(value);
    else holder[field.jsonName] = [value];
  }

  /** The object that holds the last field; made where it is missing. */
  private holderOf(fields: readonly DescField[]): JsonObject | undefined {
    let holder = this.root;
    for (const field of fields.slice(0, -1)) {
      const key = keyIn(holder, field);
      const next = holder[key] ?? {};
      if (!isJsonObject(next)) return undefined;
      holder[key] = next;
      holder = next;
    }
    return holder;
  }

  private fault(field: string, message: string): void {
    this.violations.push({ field: shorten(field, 200), message });
  }
}

const keyOf = (fields: readonly DescField[]): string => fields.map((field) => field.name).join(".");

/** The name under which an object has a field; both are read. */
function keyIn(holder: JsonObject, field: DescField): string {
  return !Object.hasOwn(holder, field.jsonName) && Object.hasOwn(holder, field.name) ? field.name : field.jsonName;
}

function unknownParameter(name: string, part: string, desc: DescMessage | undefined): string {
  if (desc === undefined) return `there is nothing below ${JSON.stringify(name.slice(0, name.lastIndexOf(".")))}`;
  if (part === "namespace") return "the namespace goes into the header Taskmesh-Namespace";
  const nearest = nearestName(
    part,
    desc.fields.map((field) => field.jsonName),
  );
  const hint = nearest === undefined ? "" : `; did you mean ${JSON.stringify(nearest)}?`;
  return `${desc.name} has no field ${JSON.stringify(shorten(part))}${hint}`;
}

function whyNot(field: DescField): string {
  if (field.fieldKind === "map") return "a map can't be a query parameter";
  const isPlain = field.message !== undefined && !hasOwnJsonForm(field.message) && field.fieldKind !== "list";
  const [first] = field.message?.fields ?? [];
  if (isPlain && first !== undefined)
    return `is a message: give its fields, such as ${field.jsonName}.${first.jsonName}`;
  return `values of ${field.message?.typeName ?? "this type"} can't be query parameters`;
}

function decodeQuery(text: string): string | undefined {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return undefined;
  }
}
