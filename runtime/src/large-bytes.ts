/**
 * protobuf-es writes base64 byte by byte in JavaScript: five seconds of a blocked process for 20 MB, which Buffer does in 20 ms. So
 * large values are taken out of a message before it is rendered, and put into the JSON afterwards.
 */
import {
  type DescField,
  type DescMessage,
  type JsonObject,
  type JsonValue,
  type Message,
  ScalarType,
} from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { hasOwnJsonForm } from "./json-faults.js";
import type { JsonPath } from "./strict-json.js";

/** Below this size the detour costs more than it saves. */
export const LARGE_BYTES_MIN = 16 * 1024;

/** A value that was taken out. */
export interface LargeBytes {
  path: JsonPath;
  bytes: Uint8Array;
}

/** Empties every large bytes field of `message`, and returns what was in them. */
export function takeLargeBytes(desc: DescMessage, message: Message): LargeBytes[] {
  const taken: LargeBytes[] = [];
  takeFrom(reflect(desc, message, false), [], taken);
  return taken;
}

/** Puts the values into the JSON of the message that they came from. */
export function putLargeBytes(json: JsonValue, taken: readonly LargeBytes[]): void {
  for (const { path, bytes } of taken) {
    let holder = json as JsonObject;
    for (const part of path.slice(0, -1)) holder = holder[part] as JsonObject;
    const base64 = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
    // A map key may be "__proto__".
    const value = { value: base64, enumerable: true, configurable: true, writable: true };
    Object.defineProperty(holder, path.at(-1)!, value);
  }
}

function takeFrom(message: ReflectMessage, path: JsonPath, taken: LargeBytes[]): void {
  if (hasOwnJsonForm(message.desc)) return;
  for (const field of message.fields) {
    if (!mayHoldBytes(field) || !message.isSet(field)) continue;
    takeFromField(message, field, [...path, field.jsonName], taken);
  }
}

function takeFromField(message: ReflectMessage, field: DescField, path: JsonPath, taken: LargeBytes[]): void {
  const take = (value: unknown, at: JsonPath, clear: () => void) => {
    if (field.message !== undefined) takeFrom(value as ReflectMessage, at, taken);
    else if (value instanceof Uint8Array && value.length >= LARGE_BYTES_MIN) {
      taken.push({ path: at, bytes: value });
      clear();
    }
  };
  switch (field.fieldKind) {
    case "list": {
      const list = message.get(field);
      for (let index = 0; index < list.size; index++) {
        take(list.get(index), [...path, index], () => list.set(index, empty));
      }
      return;
    }
    case "map": {
      const map = message.get(field);
      for (const [key, value] of map.entries()) take(value, [...path, String(key)], () => map.set(key, empty));
      return;
    }
    case "message":
    case "scalar":
      take(message.get(field), path, () => message.set(field, empty));
      return;
    case "enum":
  }
}

function mayHoldBytes(field: DescField): boolean {
  return field.message !== undefined || field.scalar === ScalarType.BYTES;
}

const empty = new Uint8Array();
