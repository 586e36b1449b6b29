/**
 * Write Taskmesh actions in TypeScript: define them from generated services, serve them with a worker, unit-test them with
 * `@taskmesh/action-sdk/testing`.
 */
export type { ActionContext, ActionLog, LogFields } from "./context.js";
export {
  type Action,
  type AnyAction,
  type DefineOptions,
  defineAction,
  defineStream,
  type Handler,
  type InputUpcaster,
  type MethodEntry,
  type Outputs,
  type StreamHandler,
} from "./define.js";
export type { Descriptors } from "./descriptors.js";
export {
  type AbortCode,
  ActionFailure,
  AttemptAborted,
  detail,
  type FailOptions,
  type FailureDetail,
  fail,
} from "./errors.js";
export type { TransportName, WorkerOptions } from "./options.js";
export { startWorker, type Worker } from "./worker.js";
