/**
 * The reasons of the mesh: every error says one of these names, so that a program can act on it without reading text.
 *
 * `reasons` are carried by statuses (google.rpc.ErrorInfo.reason, `reason` of problem+json), `failureReasons` (failure-reasons.ts) by
 * the Failure of an attempt, a step or a run. docs/errors.md is made of these tables, and a test holds both equal.
 */
import { status } from "@grpc/grpc-js";

/** One reason of a status. */
export interface ReasonEntry {
  /** gRPC status code that it comes with. */
  code: status;
  /** HTTP status, where HTTP has one that says more than the code's. */
  http?: number;
  /** What happened. */
  meaning: string;
  /** What the caller can do. */
  fix: string;
}

const {
  ABORTED,
  ALREADY_EXISTS,
  CANCELLED,
  DATA_LOSS,
  DEADLINE_EXCEEDED,
  FAILED_PRECONDITION,
  INTERNAL,
  INVALID_ARGUMENT,
  NOT_FOUND,
  PERMISSION_DENIED,
  RESOURCE_EXHAUSTED,
  UNAUTHENTICATED,
  UNAVAILABLE,
  UNIMPLEMENTED,
} = status;

/** Every reason that a status of the mesh may carry. */
export const reasons = {
  ARGUMENT_INVALID: {
    code: INVALID_ARGUMENT,
    meaning: "A field of the request is missing, malformed or out of its bounds; BadRequest names it.",
    fix: "Correct the named field.",
  },
  INPUT_INVALID: {
    code: INVALID_ARGUMENT,
    meaning: "The input of a run breaks the contract of its method; BadRequest names the field.",
    fix: "Compare the input with the contract (`taskmesh actions describe`).",
  },
  OUTPUT_INVALID: {
    code: INVALID_ARGUMENT,
    meaning: "The output that is given for a step breaks the contract of its callee; BadRequest names the field.",
    fix: "Compare it with the contract (`taskmesh actions describe`).",
  },
  OUTPUT_NEEDED: {
    code: INVALID_ARGUMENT,
    meaning: "Other expressions of the chain rely on the step's output, so it can't be skipped without one.",
    fix: "Give the output that the step would have returned.",
  },
  PAGE_TOKEN_INVALID: {
    code: INVALID_ARGUMENT,
    meaning: "The page token was not made by this list, or its filter has changed.",
    fix: "List again from the first page.",
  },
  CHAIN_INVALID: {
    code: INVALID_ARGUMENT,
    meaning: "The chain does not pass its checks; the detail ChainInvalid lists each problem with its place.",
    fix: "Correct the named steps and expressions; `taskmesh chains validate` shows them.",
  },
  DESCRIPTORS_INVALID: {
    code: INVALID_ARGUMENT,
    meaning: "The descriptors of a registration are unreadable, incomplete, or lack a method that is offered.",
    fix: "Generate the descriptors again with `taskmesh gen`, imports included and dependencies first.",
  },
  SERVICE_RESERVED: {
    code: INVALID_ARGUMENT,
    meaning: "The service's package is reserved (taskmesh.*, grpc.*, google.*, buf.*).",
    fix: "Declare the service in a package of your own.",
  },
  PAYLOAD_NOT_JSON: {
    code: FAILED_PRECONDITION,
    http: 422,
    meaning:
      "A stored message has no JSON form: it holds a google.protobuf.Any of a type that its contract does not import.",
    fix: "Read it over gRPC, or import the type where the contract is declared.",
  },
  CONTRACT_BREAKING: {
    code: FAILED_PRECONDITION,
    meaning:
      "A contract breaks the revision before it; the detail ContractBreaking lists each rule, file and field, and which chains and runs it would break.",
    fix: "Evolve it compatibly or declare a new package version; `taskmesh contracts check` shows all, `taskmesh contracts allow` lets one revision pass.",
  },
  TOKEN_MISSING: {
    code: UNAUTHENTICATED,
    meaning: "The call carries neither a bearer token nor a verified client certificate.",
    fix: "Set TASKMESH_TOKEN or TASKMESH_TOKEN_FILE, or a client certificate.",
  },
  TOKEN_INVALID: {
    code: UNAUTHENTICATED,
    meaning: "The bearer token is not one of the server's.",
    fix: "Use a token that the server's token file lists.",
  },
  NAMESPACE_REQUIRED: {
    code: INVALID_ARGUMENT,
    meaning: "The server holds several namespaces and the call names none.",
    fix: "Set `namespace` in the request, or the metadata `taskmesh-namespace`.",
  },
  NAMESPACE_NOT_FOUND: {
    code: NOT_FOUND,
    meaning: "There is no such namespace.",
    fix: "Check the name, or add it to TASKMESH_NAMESPACES.",
  },
  METHOD_NOT_FOUND: {
    code: NOT_FOUND,
    meaning: "No action or chain of this name is registered in the namespace.",
    fix: "`taskmesh actions list` and `taskmesh chains list` show the names; start the worker that implements it.",
  },
  RUN_NOT_FOUND: {
    code: NOT_FOUND,
    meaning: "There is no such run in the namespace.",
    fix: "Check the run id and the namespace.",
  },
  STEP_NOT_FOUND: {
    code: NOT_FOUND,
    meaning: "The run has no such step.",
    fix: "`taskmesh runs show` lists the steps.",
  },
  CHAIN_NOT_FOUND: {
    code: NOT_FOUND,
    meaning: "There is no such chain, or no such version of it, in the namespace.",
    fix: "`taskmesh chains list` shows the names.",
  },
  CONTRACT_NOT_FOUND: {
    code: NOT_FOUND,
    meaning: "There is no contract of this fingerprint or method in the namespace.",
    fix: "Register the action, or leave the fingerprint out to get the newest revision.",
  },
  SESSION_NOT_FOUND: {
    code: NOT_FOUND,
    meaning: "The worker's session has ended or lapsed.",
    fix: "Register again; the SDK does so by itself.",
  },
  PAYLOAD_NOT_FOUND: {
    code: NOT_FOUND,
    meaning: "There is no stored payload of this reference in the namespace.",
    fix: "Store it again with PutPayload.",
  },
  ROUTE_NOT_FOUND: {
    code: NOT_FOUND,
    meaning: "The gateway has no route of this path.",
    fix: "GET / of the gateway lists the routes.",
  },
  HTTP_METHOD_NOT_ALLOWED: {
    code: UNIMPLEMENTED,
    http: 405,
    meaning: "The gateway's route does not take this HTTP method; the header Allow lists those that it takes.",
    fix: "Use one of the methods in Allow.",
  },
  CONTENT_TYPE_UNSUPPORTED: {
    code: INVALID_ARGUMENT,
    http: 415,
    meaning: "The body has a content type that the route does not take.",
    fix: "Send JSON with `Content-Type: application/json` (curl: --json).",
  },
  JSON_MALFORMED: {
    code: INVALID_ARGUMENT,
    meaning: "The body is not strict JSON: malformed, not UTF-8, nested too deeply, or with a key twice in one object.",
    fix: "Correct the text at the named place.",
  },
  ORIGIN_DENIED: {
    code: PERMISSION_DENIED,
    meaning: "The request comes from a page of another site, or names a host that is not the gateway's.",
    fix: "Call the API from its own origin or from a program; a gateway behind a name needs credentials.",
  },
  IDEMPOTENCY_KEY_REUSED: {
    code: ALREADY_EXISTS,
    meaning:
      "The idempotency key was used with another input or method; the detail IdempotencyKeyReused names the run.",
    fix: "Use a new key for a new request.",
  },
  RUN_ENDED: {
    code: FAILED_PRECONDITION,
    meaning: "The run has ended; a final status never changes. The detail RunEnded names it.",
    fix: "Start a new run if it is to be done again.",
  },
  SIGNAL_UNKNOWN: {
    code: NOT_FOUND,
    meaning: "No step of the run's chain waits for a signal of this name.",
    fix: "Use a name that `taskmesh chains show --spec` shows under `signal`.",
  },
  SIGNAL_NOT_AWAITED: {
    code: FAILED_PRECONDITION,
    meaning: "Every step that waits for this signal has ended, or the run is being cancelled: it came too late.",
    fix: "Look at the run; start a new one if it is to be done again.",
  },
  SIGNAL_UNANSWERED: {
    code: FAILED_PRECONDITION,
    meaning:
      "No answer to the signal will come any more: the run, or every step that could give it, has ended without.",
    fix: "Look at the run; the signal itself was taken.",
  },
  SIGNALS_FULL: {
    code: RESOURCE_EXHAUSTED,
    meaning: "The run keeps 64 messages for steps that do not wait yet, and takes no more.",
    fix: "Wait for `RetryInfo` and send it again with the same id.",
  },
  CALLBACK_UNKNOWN: {
    code: NOT_FOUND,
    meaning: "No step that waits for a callback has this token.",
    fix: "Post to the URL as it was given out, whole.",
  },
  CALLBACK_USED: {
    code: ALREADY_EXISTS,
    meaning: "The callback was answered before; a token is good for one answer.",
    fix: "Nothing: the first answer counts.",
  },
  CALLBACK_CLOSED: {
    code: FAILED_PRECONDITION,
    meaning: "The callback's step waits no more: its time was over, or its run has ended.",
    fix: "Nothing: the run goes on, or ended, without the answer.",
  },
  ASSIGNMENT_NOT_FOUND: {
    code: NOT_FOUND,
    meaning:
      "The run has no such step that waits for a person: it was completed, its time was over, or its run has ended.",
    fix: "List what is open: `taskmesh assignments list`.",
  },
  ASSIGNMENT_CLAIMED: {
    code: FAILED_PRECONDITION,
    meaning: "Another person has claimed the assignment.",
    fix: "Ask them to release it, or take another.",
  },
  ASSIGNMENT_DENIED: {
    code: PERMISSION_DENIED,
    meaning: "The assignment is for other people or groups.",
    fix: "Name the person and the groups that they are in; the chain says who may do it.",
  },
  RUN_CANCELLING: {
    code: FAILED_PRECONDITION,
    meaning: "The run is being cancelled and can't be held any more.",
    fix: "Wait for its end.",
  },
  RUN_NOT_BROKEN: {
    code: FAILED_PRECONDITION,
    meaning: "Only a BROKEN run has steps to retry or skip, and this one is not BROKEN (any more).",
    fix: "See its state (`taskmesh runs show`); somebody else may have mended it.",
  },
  BULK_OPERATION_NOT_FOUND: {
    code: NOT_FOUND,
    meaning: "No bulk operation of the namespace has this id.",
    fix: "`taskmesh bulk start` prints the id; the namespace must be the same.",
  },
  STEP_NOT_BROKEN: {
    code: FAILED_PRECONDITION,
    meaning: "The step is none of those that broke the run.",
    fix: "`broken_steps` of the run names those.",
  },
  RUN_UNDER_WAY: {
    code: FAILED_PRECONDITION,
    meaning: "Only a run that is BROKEN or has ended is restarted, and this one goes on.",
    fix: "Cancel it first, or clone it (`taskmesh runs clone`), which cancels it.",
  },
  RUN_HAS_PARENT: {
    code: FAILED_PRECONDITION,
    meaning: "A step of another run waits for this one, so no other run can take its place; the message names both.",
    fix: "Retry or skip the run's broken steps, or restart the run above it.",
  },
  RESTART_UNFIT: {
    code: FAILED_PRECONDITION,
    meaning:
      "A new run can't go on from the step: results of the run, or the version asked for, do not fit; the detail RestartUnfit says which steps and why.",
    fix: "Restart from an earlier step, or with the pinned version, as the detail says.",
  },
  CUSTOM_ID_TAKEN: {
    code: ALREADY_EXISTS,
    meaning: "A run that has not ended has the custom id; the detail CustomIdTaken names it.",
    fix: "Use that run (`USE_EXISTING`), or have it ended (`TERMINATE_EXISTING`).",
  },
  CUSTOM_ID_USED: {
    code: ALREADY_EXISTS,
    meaning:
      "A run that has ended had the custom id, and the reuse policy allows no other; the detail CustomIdTaken names it.",
    fix: "Use its result, choose another id, or allow the reuse.",
  },
  LEASE_LOST: {
    code: FAILED_PRECONDITION,
    meaning: "The attempt was superseded by another one, or its step has ended.",
    fix: "Drop the attempt; do not retry.",
  },
  METHOD_TAKEN: {
    code: FAILED_PRECONDITION,
    meaning: "The method belongs to a chain and is offered by a worker, or the other way round.",
    fix: "Choose another name for one of them.",
  },
  CHAIN_UNSERVABLE: {
    code: FAILED_PRECONDITION,
    meaning: "No live worker serves a step of the chain.",
    fix: "Start the worker, or allow unserved steps.",
  },
  RUN_FAILED: {
    code: ABORTED,
    meaning: "The run that the call waited for failed; the detail RunFailed says why.",
    fix: "See the run's steps (`taskmesh runs show`).",
  },
  RUN_BROKEN: {
    code: ABORTED,
    meaning: "The run that the call waited for broke and waits for an operator.",
    fix: "See the run's steps (`taskmesh runs show`).",
  },
  RUN_CANCELLED: {
    code: CANCELLED,
    http: 409,
    meaning: "The run that the call waited for was cancelled.",
    fix: "Start it again if it is still wanted.",
  },
  RUN_EXPIRED: {
    code: DEADLINE_EXCEEDED,
    meaning: "The run that the call waited for reached its deadline.",
    fix: "Give it more time, or see which step was slow.",
  },
  OVERLOADED: {
    code: RESOURCE_EXHAUSTED,
    meaning: "The coordinator has as much work waiting as it accepts.",
    fix: "Retry after the delay in RetryInfo, with the same idempotency key.",
  },
  LIMIT_EXCEEDED: {
    code: RESOURCE_EXHAUSTED,
    meaning: "A limit on count or size was reached; the message names it.",
    fix: "Stay below the limit, or raise it where it is a setting.",
  },
  PAYLOAD_TOO_LARGE: {
    code: RESOURCE_EXHAUSTED,
    http: 413,
    meaning: "A payload is over 64 MiB, or over 128 KiB where it must travel inline.",
    fix: "Pass less, store it with PutPayload, or pass a link to it.",
  },
  MESSAGE_TOO_LARGE: {
    code: RESOURCE_EXHAUSTED,
    http: 413,
    meaning: "A request is over the 4 MiB that one message may have.",
    fix: "Send large inputs through PutPayload.",
  },
  PAYLOAD_CORRUPT: {
    code: DATA_LOSS,
    meaning: "The stored bytes no longer match their hash.",
    fix: "Restore the database from a backup; the payload can't be trusted.",
  },
  DRAINING: {
    code: UNAVAILABLE,
    meaning: "The process is shutting down and takes no more work.",
    fix: "Retry; another process or the restarted one answers.",
  },
  DATABASE_UNAVAILABLE: {
    code: UNAVAILABLE,
    meaning: "The database can't be reached or did not confirm in time.",
    fix: "Retry with the same idempotency key.",
  },
  COORDINATOR_UNAVAILABLE: {
    code: UNAVAILABLE,
    meaning: "No coordinator answered at the configured addresses.",
    fix: "Check TASKMESH_ADDRESS and that the coordinator runs; then retry.",
  },
  DEADLINE_EXCEEDED: {
    code: DEADLINE_EXCEEDED,
    meaning: "The call's own deadline passed before the answer. What it asked for may have happened.",
    fix: "Retry with the same idempotency key and a longer deadline.",
  },
  CALL_CANCELLED: {
    code: CANCELLED,
    meaning: "The caller gave the call up. What it asked for may have happened.",
    fix: "Nothing, or retry with the same idempotency key.",
  },
  METHOD_UNIMPLEMENTED: {
    code: UNIMPLEMENTED,
    meaning: "This server does not serve the method, or not in this mode.",
    fix: "Check the address and the versions of client and server.",
  },
  INTERNAL: {
    code: INTERNAL,
    meaning: "A fault of the mesh itself. The message carries a trace id and nothing else.",
    fix: "Look for the trace id in the server's log and report it.",
  },
} as const satisfies Record<string, ReasonEntry>;

/** Name of a reason that a status of the mesh carries. */
export type Reason = keyof typeof reasons;
