/** Texts of paths and queries as JSON values of a field. */
import { type DescField, type JsonValue, ScalarType } from "@bufbuild/protobuf";

export type TextValue = { ok: true; json: JsonValue } | { ok: false; expected: string };

/**
 * The JSON value that a text stands for, as one item if the field is a list. Numbers stay text, which protobuf JSON takes as well and in which
 * no digit is lost; only what no text can stand for in JSON is decided here.
 */
export function textToJson(field: DescField, text: string): TextValue {
  if (field.enum !== undefined) {
    if (/^-?\d{1,10}$/.test(text)) return { ok: true, json: Number(text) };
    return { ok: true, json: text };
  }
  const { message } = field;
  if (message?.name === "FieldMask") return { ok: true, json: camelCaseMask(text) };
  if (message !== undefined) {
    const wrapped = message.fields.length === 1 ? message.fields[0]?.scalar : undefined;
    return scalarToJson(wrapped, text);
  }
  return scalarToJson(field.scalar, text);
}

function scalarToJson(scalar: ScalarType | undefined, text: string): TextValue {
  switch (scalar) {
    case ScalarType.BOOL:
      return text === "true" || text === "false"
        ? { ok: true, json: text === "true" }
        : { ok: false, expected: "true or false" };
    case undefined:
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return { ok: true, json: text };
    default:
      // An empty text is no number, though some parsers read it as zero.
      return text.trim() === text && text !== "" ? { ok: true, json: text } : { ok: false, expected: "a number" };
  }
}

/** Clients write masks with the names of the proto as often as with those of JSON. */
function camelCaseMask(text: string): string {
  return text.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
