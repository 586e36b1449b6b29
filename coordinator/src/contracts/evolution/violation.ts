/**
 * What a change of a contract may break, rule by rule.
 *
 * Rules without the prefix MESH_ are those of the buf CLI's category WIRE_JSON, under the same names and with the same verdicts. The others
 * are the mesh's own: what is wire-compatible and would still break a chain, a caller or a worker.
 */

/** Every rule, with what its author does about it. */
export const evolutionRules = {
  ENUM_SAME_JSON_FORMAT: "keep the JSON format of the enum",
  ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED: "reserve the value's name, or keep the value",
  ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED: "reserve the value's number, or keep the value",
  ENUM_VALUE_SAME_NAME: "keep the value's name; add a value under a new number",
  FIELD_NO_DELETE_UNLESS_NAME_RESERVED: "reserve the field's name, or keep the field",
  FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED: "reserve the field's number, or keep the field",
  FIELD_SAME_DEFAULT: "keep the default",
  FIELD_SAME_JSON_NAME: "keep the JSON name; add a field under a new number",
  FIELD_SAME_NAME: "keep the name; add a field under a new number",
  FIELD_SAME_ONEOF: "leave the field where it was; add new members to a oneof",
  FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY: "keep it as it was; add a field under a new number",
  FIELD_WIRE_JSON_COMPATIBLE_TYPE: "keep the type; add a field under a new number",
  MESSAGE_SAME_JSON_FORMAT: "keep the JSON format of the message",
  MESSAGE_SAME_REQUIRED_FIELDS: "add fields as optional, and leave required ones required",
  RESERVED_ENUM_NO_DELETE: "keep numbers and names reserved",
  RESERVED_MESSAGE_NO_DELETE: "keep numbers and names reserved",
  RPC_SAME_CLIENT_STREAMING: "declare a new rpc",
  RPC_SAME_IDEMPOTENCY_LEVEL: "keep idempotency_level",
  RPC_SAME_REQUEST_TYPE: "declare a new rpc, or add fields to the old type",
  RPC_SAME_RESPONSE_TYPE: "declare a new rpc, or add fields to the old type",
  RPC_SAME_SERVER_STREAMING: "declare a new rpc",
  MESH_CONSTRAINT_LOOSENED: "keep the limits of what the action returns",
  MESH_CONSTRAINT_TIGHTENED: "keep accepting what was accepted, and refuse in the handler where you must",
  MESH_ENUM_CLOSED: "leave the enum open",
  MESH_EXCLUSIVE_LOST: "keep `exclusive`",
  MESH_FIELD_IN_USE: "save the named chains without the field first",
  MESH_FIELD_REQUIRED: "accept the field's absence",
  MESH_FIELD_SAME_SIGN: "keep the type; add a field under a new number",
  MESH_IDEMPOTENCY_LOST: "keep `idempotent`",
  MESH_INVERSE_CHANGED: "keep the inverse action",
  MESH_SENSITIVITY_REMOVED: "leave the field sensitive",
} as const;

/** Name of a rule. */
export type EvolutionRule = keyof typeof evolutionRules;

/** Where messages of the changed type go: into the action (workers read them) or out of it (chains and callers do). */
export type Side = "input" | "output";

/** One way in which a contract breaks its predecessor. */
export interface Violation {
  rule: EvolutionRule;
  /** Import path of the .proto file that declares what changed, as the newer contract has it. */
  file: string;
  /** Line in the file, counted from 1; 0: the descriptors carry no source information. */
  line: number;
  /** Full name of the field, enum value, oneof or type; the method for the rpc itself. */
  subject: string;
  /** Name of the message or enum that it is part of, and its number there; empty and 0 for anything but a field. */
  type: string;
  number: number;
  /** Sides on which it matters; both for the rpc itself. */
  sides: readonly Side[];
  /** One sentence about what was and what is; the subject is its subject. */
  message: string;
}

/** The whole of a violation as one line for people. */
export function describeViolation({ rule, file, line, subject, message }: Violation): string {
  return `${file}${line > 0 ? `:${line}` : ""}: ${subject} ${message} [${rule}]; ${evolutionRules[rule]}`;
}
