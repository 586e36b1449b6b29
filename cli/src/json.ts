/** Reading JSON that another program wrote: wrong shapes read as empty, never as a crash. */

/** A parsed JSON value. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

/** The object, or an empty one. */
export const object = (value: Json | undefined): JsonObject =>
  value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};

/** The objects of a list, or none. */
export const objects = (value: Json | undefined): JsonObject[] => (Array.isArray(value) ? value.map(object) : []);

/** The string, or an empty one. */
export const text = (value: Json | undefined): string => (typeof value === "string" ? value : "");

/** The strings of a list, or none. */
export const texts = (value: Json | undefined): string[] => (Array.isArray(value) ? value.map(text) : []);
