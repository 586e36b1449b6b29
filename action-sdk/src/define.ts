/**
 * Actions as their authors write them: an rpc of a generated service, and the function that implements it.
 *
 * Types flow from the generated method entry alone. The handler's answer is held to the output message exactly: a missing field, a field
 * of another type and a field that the message does not have are compile errors, nested messages included.
 */
import type { ActionContext } from "./context.js";

/**
 * One method of a service constant that ts-proto generated with `outputServices=grpc-js`, such as `PageActionsService.score`.
 * `path` is "/acme.pages.v1.PageActions/Score".
 */
export interface MethodEntry<Input, Output> {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly requestSerialize: (value: Input) => Buffer;
  readonly requestDeserialize: (bytes: Buffer) => Input;
  readonly responseSerialize: (value: Output) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Output;
}

/** The function that implements an action. It may run again with the same input after a crash: see `ActionContext.idempotencyKey`. */
export type Handler<Input, Output> = (input: Input, context: ActionContext) => Output | Promise<Output>;

/**
 * The function that implements an action whose rpc returns a stream: most simply an async generator. Each output goes to the caller as it is
 * yielded; the last one, or what the generator returns, is the result that is recorded. When the attempt must stop, the generator ends at its
 * next `yield` (its `finally` blocks run).
 */
export type StreamHandler<Input, Output> = (
  input: Input,
  context: ActionContext,
) => AsyncIterable<Output> | Outputs<Output>;

/** What an async generator gives that may return its result. */
// biome-ignore lint/suspicious/noConfusingVoidType: a generator without a return statement returns void
export type Outputs<Output> = AsyncGenerator<Output, Output | undefined | void, void>;

/** What an author may say about one action beside its contract. */
export interface DefineOptions {
  /** Task queue that this action listens on. Default: the worker's `taskQueue`, else the full name of the action's service. */
  taskQueue?: string;
  /**
   * How inputs of older revisions of the contract become inputs of this one, so that this worker can take what is pinned to them. Checked and tried
   * with the live runs as the worker registers; what keeps one out of force is logged as a warning. At most 100 in a worker. Default: none.
   */
  upcasters?: readonly InputUpcaster[];
}

/** A way from the input of an older revision of an action's contract to the present one. */
export interface InputUpcaster {
  /** Fingerprint of the older revision, as `taskmesh actions describe` shows it. */
  from: string;
  /**
   * Field of the present input -> CEL expression over `input`, the older one; a path such as "order.total" sets a field of a message within.
   * Names are those of the .proto file. What both revisions have alike is copied without being named.
   */
  input: Readonly<Record<string, string>>;
  /** For whoever reads the record; at most 1,000 characters. Default: empty. */
  reason?: string;
}

/** An action ready to be served by `startWorker` or tried with `runAction`. */
export interface Action<Input, Output> {
  /** Full method name, "acme.pages.v1.PageActions/Score". */
  readonly method: string;
  /** Full name of the service, "acme.pages.v1.PageActions". */
  readonly service: string;
  readonly entry: MethodEntry<Input, Output>;
  /** A StreamHandler where the rpc returns a stream. */
  readonly handler: Handler<Input, Output> | StreamHandler<Input, Output>;
  readonly options: DefineOptions;
}

/** Any action, for lists of them: `startWorker({ actions })`. Values go in and out as bytes, so nothing is lost. */
// biome-ignore lint/suspicious/noExplicitAny: actions of different contracts in one list; each was checked where it was defined.
export type AnyAction = Action<any, any>;

type Leaf = string | number | boolean | bigint | Uint8Array | Date | null | undefined;
type KeysOfUnion<T> = T extends T ? keyof T : never;

/** What may be answered for a message: the message itself, or a literal of it, whose arrays TypeScript infers as readonly. */
type Answer<T> = T extends Leaf
  ? T
  : T extends readonly (infer E)[]
    ? readonly Answer<E>[]
    : { readonly [K in keyof T]: Answer<T[K]> };

/** `never` for each field of `Given`, at any depth, that `Expected` does not have. TypeScript alone lets them pass in a return value. */
type Only<Expected, Given> = [Expected] extends [Leaf]
  ? unknown
  : Expected extends readonly (infer E)[]
    ? Given extends readonly (infer G)[]
      ? readonly (Only<NonNullable<E>, NonNullable<G>> | undefined)[]
      : unknown
    : Given extends unknown
      ? {
          [K in keyof Given]: K extends KeysOfUnion<Expected>
            ? Only<NonNullable<Extract<Expected, { [P in K]?: unknown }>[K]>, NonNullable<Given[K]>> | undefined
            : never;
        }
      : never;

/**
 * Defines an action: `defineAction(PageActionsService.score, async ({ text }, { signal }) => ({ words: text.split(/\s+/).length }))`.
 *
 * Throws a TypeError for a method that streams (one that returns a stream is for `defineStream`) and for an entry that is not a generated method.
 */
export function defineAction<Input, Output, const Given extends Answer<Output>>(
  entry: MethodEntry<Input, Output>,
  handler: (
    input: Input,
    context: ActionContext,
  ) => (Given & Only<Output, Given>) | Promise<Given & Only<Output, Given>>,
  options: DefineOptions = {},
): Action<Input, Output> {
  const action = define(entry, handler as unknown as Handler<Input, Output>, options);
  if (!entry.responseStream) return action;
  throw new TypeError(`${action.method} returns a stream: define it by defineStream, with an async generator`);
}

/**
 * Defines an action whose rpc returns a stream: `defineStream(LetterActionsService.spell, async function* ({ text }) { … yield { letter } })`.
 *
 * Throws a TypeError for a method that returns one message or takes a stream, and for an entry that is not a generated method.
 */
export function defineStream<Input, Output, const Given extends Answer<Output>>(
  entry: MethodEntry<Input, Output>,
  handler: (
    input: Input,
    context: ActionContext,
  ) => AsyncIterable<Given & Only<Output, Given>> | Outputs<Given & Only<Output, Given>>,
  options: DefineOptions = {},
): Action<Input, Output> {
  const action = define(entry, handler as unknown as StreamHandler<Input, Output>, options);
  if (entry.responseStream) return action;
  throw new TypeError(`${action.method} returns one message: define it by defineAction`);
}

function define<Input, Output>(
  entry: MethodEntry<Input, Output>,
  handler: Handler<Input, Output> | StreamHandler<Input, Output>,
  options: DefineOptions,
): Action<Input, Output> {
  const match = /^\/([\w.]+)\/(\w+)$/.exec(entry?.path ?? "");
  if (!match) {
    throw new TypeError("defineAction needs a method of a generated service, such as PageActionsService.score");
  }
  const [, service, name] = match as unknown as [string, string, string];
  if (entry.requestStream) {
    throw new TypeError(`${service}/${name} takes a stream: an action takes one message, and may return a stream`);
  }
  if (typeof handler !== "function") throw new TypeError(`the handler of ${service}/${name} is not a function`);
  return {
    method: `${service}/${name}`,
    service,
    entry,
    handler,
    options,
  };
}
