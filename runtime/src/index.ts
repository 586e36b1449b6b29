export * from "./transport/transport.js";
