/** What stands for workers when a chain is rehearsed. */
import type { JsonValue } from "@bufbuild/protobuf";

/** One attempt, as its stub sees it. */
export interface StubContext {
  stepId: string;
  /** From 1. */
  attempt: number;
  /** Calls of this stub so far, this one included. */
  call: number;
  /** The rehearsed instant, in milliseconds since 1970. */
  nowMs: number;
}

/** A failure that a stub reports by throwing it; any other error is reported as HANDLER_ERROR, retryable. */
export class StubFailure extends Error {
  override readonly name = "StubFailure";
  constructor(
    readonly reason: string,
    message: string,
    readonly retryable: boolean,
  ) {
    super(message);
  }
}

/** Makes a failure that ends the step, whatever its retry policy says. */
export const failsForGood = (reason: string, message = reason): StubFailure => new StubFailure(reason, message, false);
/** Makes a failure that another attempt may follow. */
export const failsForNow = (reason: string, message = reason): StubFailure => new StubFailure(reason, message, true);

const taken: unique symbol = Symbol("taskmesh.taken");

/** An answer that comes later, or never. */
export interface Later<Output> {
  readonly [taken]: { ms: number; output: Output | StubFailure | undefined };
}

/** The attempt takes so many milliseconds of rehearsed time, and then answers or fails. */
export const takes = <Output>(ms: number, output: Output | StubFailure): Later<Output> => ({ [taken]: { ms, output } });
/** The attempt never answers: its time-outs decide. */
export const hangs: Later<never> = { [taken]: { ms: Number.POSITIVE_INFINITY, output: undefined } };

/** How long an answer takes, and what it is. */
export function readAnswer(answer: unknown): { ms: number; output: unknown } {
  if (typeof answer === "object" && answer !== null && taken in answer) return (answer as Later<unknown>)[taken];
  return { ms: 0, output: answer };
}

/** What a handler of a stub may answer. A failure may be thrown or returned. */
export type StubAnswer<Output> = Output | StubFailure | Later<Output>;

export type StubHandler<Input, Output> = (
  input: Input,
  context: StubContext,
) => StubAnswer<Output> | Promise<StubAnswer<Output>>;

/** A method of generated code (ts-proto, grpc-js), as far as stubs need it. */
export interface StubbedMethod<Input, Output> {
  readonly path: string;
  readonly requestDeserialize: (bytes: Buffer) => Input;
  readonly responseSerialize: (value: Output) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Output;
}

/** Stands for the workers of one action. */
export interface Stub {
  /** Full method name. */
  readonly method: string;
  /** Turns the answer into the bytes of the output; undefined: it is protobuf JSON. */
  readonly serialize?: (value: unknown) => Uint8Array;
  readonly deserialize?: (bytes: Uint8Array) => unknown;
  readonly handler: StubHandler<never, unknown>;
}

/** A stub for a method of generated code; its handler has the types of the contract. Fields that are left out have their defaults. */
export function stub<Input, Output>(
  method: StubbedMethod<Input, Output>,
  handler: StubHandler<Input, Partial<Output>>,
): Stub;
/** A stub for an action by its full method name; its handler reads and answers canonical protobuf JSON. */
export function stub(method: string, handler: StubHandler<Record<string, JsonValue>, JsonValue>): Stub;
export function stub(
  // biome-ignore lint/suspicious/noExplicitAny: what the overloads say.
  method: string | StubbedMethod<any, any>,
  // biome-ignore lint/suspicious/noExplicitAny: likewise.
  handler: StubHandler<any, any>,
): Stub {
  if (typeof method === "string") return { method, handler };
  return {
    method: method.path.replace(/^\//, ""),
    serialize: (value) =>
      method.responseSerialize({ ...method.responseDeserialize(Buffer.alloc(0)), ...(value as object) }),
    deserialize: (bytes) => method.requestDeserialize(Buffer.from(bytes)),
    handler,
  };
}

/** A handler that gives these answers one after another, call by call; the last one for all further calls. */
export function inTurn<Output>(...answers: readonly StubAnswer<Output>[]): StubHandler<unknown, Output> {
  return (_input, { call }) => answers[Math.min(call, answers.length) - 1]!;
}
