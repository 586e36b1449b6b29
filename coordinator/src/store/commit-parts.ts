/** What the sections of a commit's statement are made of. */
import type { Value } from "../engine/plan.js";
import type { Blob } from "./blob.js";

/** A part of the statement: CTEs that use its parameters, numbered from `first`. */
export interface Section {
  name: string;
  /** Where sections of one name differ in their text. */
  variant?: string;
  params: unknown[];
  sql(first: number): string;
}

/** Bytes of the blob. */
export const slice = (offset: string, length: string): string =>
  `substring((select blob from bytes) from ${offset} + 1 for ${length})`;
export const instant = (ms: string): string => `to_timestamp(${ms} / 1000)`;

export interface Part {
  offset: number;
  length: number;
}

export function blobText(blob: Blob, text: string): Part {
  if (text === "") return { offset: 0, length: 0 };
  const offset = blob.text(text);
  return { offset, length: blob.length - offset };
}

export function blobPayload(blob: Blob, value: Value | undefined): Part {
  if (!value) return { offset: 0, length: 0 };
  const offset = blob.payload(value);
  return { offset, length: blob.length - offset };
}
