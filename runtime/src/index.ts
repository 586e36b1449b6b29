export * from "./backoff.js";
export * from "./clock.js";
export * from "./log.js";
export * from "./reasons.js";
export * from "./service.js";
export * from "./status.js";
export * from "./transport/transport.js";
export * from "./uuid.js";
