/** The built-in actions of Taskmesh: HTTP, HTML, JSON, text, filter, generate, time. */
export { type BuiltinConfig, builtinActions, builtinConfig } from "./builtin.js";
export type { SeenQuery, SeenStore } from "./filter/seen-store.js";
export { builtinDescriptors, builtinServices } from "./gen/descriptors.js";
export type { HttpSettings } from "./http/action.js";
export type { Resolve, ResolvedAddress } from "./http/egress.js";
