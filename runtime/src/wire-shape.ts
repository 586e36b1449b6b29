/** Types as the wire check reads them: by field number, without names that it does not need. */
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";

/** Wire types of protobuf. */
export const wireVarint = 0;
export const wireFixed64 = 1;
export const wireBytes = 2;
/** Begin and end of a group: how proto2 writes its groups, and editions fields of `message_encoding = DELIMITED`. */
export const wireGroup = 3;
export const wireGroupEnd = 4;
export const wireFixed32 = 5;

/** Wire type that a scalar is written with. */
function wireTypeOf(scalar: ScalarType): number {
  switch (scalar) {
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return wireFixed64;
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return wireFixed32;
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return wireBytes;
    case ScalarType.INT64:
    case ScalarType.UINT64:
    case ScalarType.INT32:
    case ScalarType.BOOL:
    case ScalarType.UINT32:
    case ScalarType.SINT32:
    case ScalarType.SINT64:
      return wireVarint;
  }
}

/** Says what is wrong with the contents of a message whose wire form is right. */
export type RangeCheck = (bytes: Uint8Array, start: number, end: number) => string | undefined;
export type Ranges = ReadonlyMap<string, RangeCheck>;

/** What the check needs to know of a field. */
export interface FieldShape {
  name: string;
  /** Wire type of one value. */
  wire: number;
  /** May come packed too, as wire type 2. */
  packable: boolean;
  text: boolean;
  message: MessageShape | undefined;
  /** Bit of the field in the set of required fields seen; 0: not required. */
  required: number;
}

/** What it needs to know of a type. */
export interface MessageShape {
  /** By field number; numbers of 256 and above are in `sparse`. */
  dense: (FieldShape | undefined)[];
  sparse: Map<number, FieldShape> | undefined;
  required: readonly FieldShape[];
  range: RangeCheck | undefined;
}

/** Numbers below are looked up in an array. */
export const denseMax = 256;

/** The shape of a type and of all that it can hold. `ranges`: further checks of some types, by name. */
export function compileShape(desc: DescMessage, ranges: Ranges): MessageShape {
  return shapeOf(desc, { shapes: new Map(), ranges });
}

interface Known {
  shapes: Map<string, MessageShape>;
  ranges: Ranges;
}

function shapeOf(desc: DescMessage, known: Known): MessageShape {
  const existing = known.shapes.get(desc.typeName);
  if (existing !== undefined) return existing;
  const required: FieldShape[] = [];
  const shape: MessageShape = { dense: [], sparse: undefined, required, range: known.ranges.get(desc.typeName) };
  known.shapes.set(desc.typeName, shape); // before the fields: types may contain themselves
  for (const field of desc.fields) {
    const made = fieldShape(field, known);
    if (field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED) {
      // Bit sets of numbers hold 31; a message with more required fields has the rest unchecked here and caught when it is decoded.
      if (required.length < 31) {
        made.required = 1 << required.length;
        required.push(made);
      }
    }
    if (field.number < denseMax) shape.dense[field.number] = made;
    else {
      shape.sparse ??= new Map();
      shape.sparse.set(field.number, made);
    }
  }
  // Holes would make the array slow to read.
  for (let number = 0; number < shape.dense.length; number++) shape.dense[number] ??= undefined;
  return shape;
}

function fieldShape(field: DescField, known: Known): FieldShape {
  const base = { name: field.name, packable: false, text: false, message: undefined, required: 0 };
  switch (field.fieldKind) {
    case "scalar":
      return { ...base, wire: wireTypeOf(field.scalar), text: field.scalar === ScalarType.STRING };
    case "enum":
      return { ...base, wire: wireVarint };
    case "message":
      return { ...base, wire: isGroup(field) ? wireGroup : wireBytes, message: shapeOf(field.message, known) };
    case "list":
      if (field.listKind === "message")
        return { ...base, wire: isGroup(field) ? wireGroup : wireBytes, message: shapeOf(field.message, known) };
      if (field.listKind === "enum") return { ...base, wire: wireVarint, packable: true };
      return {
        ...base,
        wire: wireTypeOf(field.scalar),
        packable: wireTypeOf(field.scalar) !== wireBytes,
        text: field.scalar === ScalarType.STRING,
      };
    case "map":
      return { ...base, wire: wireBytes, message: entryShape(field, known) };
  }
}

/** Whether a field's messages are written between two tags instead of behind their length. */
export const isGroup = (field: DescField): boolean =>
  field.message !== undefined && field.fieldKind !== "map" && field.delimitedEncoding;

/** A map is on the wire a list of entries with key 1 and value 2. */
function entryShape(field: DescField & { fieldKind: "map" }, known: Known): MessageShape {
  const base = { packable: false, text: false, message: undefined, required: 0 };
  const key: FieldShape = {
    ...base,
    name: "key",
    wire: wireTypeOf(field.mapKey),
    text: field.mapKey === ScalarType.STRING,
  };
  const value: FieldShape = { ...base, name: "value", wire: wireVarint };
  if (field.mapKind === "message") {
    value.wire = wireBytes;
    value.message = shapeOf(field.message, known);
  } else if (field.mapKind === "scalar") {
    value.wire = wireTypeOf(field.scalar);
    value.text = field.scalar === ScalarType.STRING;
  }
  const required: FieldShape[] = [];
  if (field.message?.typeName === "google.protobuf.Value") {
    // An entry without its value holds a default one, and a default Value has no JSON form.
    value.required = 1;
    required.push(value);
  }
  return { dense: [undefined, key, value], sparse: undefined, required, range: undefined };
}
