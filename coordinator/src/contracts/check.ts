/**
 * Whether bytes keep a contract: the wire form of the type, then the rules that its author wrote with buf.validate.
 *
 * A type without rules costs one pass over the bytes (runtime/wire.ts) and nothing is decoded. Checks are made once per contract
 * and side, and kept with it.
 */
import { type DescMessage, fromBinary, type JsonValue, toBinary } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator, type Validator } from "@bufbuild/protovalidate";
import {
  compileWireFault,
  messageFromJson,
  messageToJson,
  parseProtobufJson,
  type ToJsonOptions,
} from "@taskmesh/runtime";
import { compilePattern } from "./cel/patterns.js";
import type { Contract } from "./contract.js";
import { hasRules } from "./fingerprint.js";
import { rulesCostOf } from "./rules-cost.js";

export type Side = "input" | "output";

/** One way in which a message breaks its contract. `field`: path of the field, "" for the message as a whole. */
export interface Violation {
  field: string;
  message: string;
}

/** Everything that is wrong with encoded bytes; empty: they keep the contract. Never throws. */
export type MessageCheck = (bytes: Uint8Array) => readonly Violation[];

const kept: readonly Violation[] = [];
const checks = new WeakMap<Contract, Partial<Record<Side, MessageCheck>>>();

/** The check of a contract's input or output. */
export function checkMessage(contract: Contract, side: Side): MessageCheck {
  const made = checks.get(contract) ?? {};
  checks.set(contract, made);
  made[side] ??= compileCheck(contract, contract[side]);
  return made[side];
}

/** The same in one sentence, as ChainPlan wants it: undefined if the bytes keep the contract. */
export function describeViolations(violations: readonly Violation[]): string | undefined {
  if (violations.length === 0) return undefined;
  return violations.map(({ field, message }) => (field === "" ? message : `${field}: ${message}`)).join("; ");
}

/** Why the validation rules of a contract can't be used: a CEL rule that does not compile, or that has no bound in practice; undefined: they can. */
export function faultOfRules(contract: Contract): string | undefined {
  for (const desc of [contract.input, contract.output]) {
    if (!hasRules(desc)) continue;
    // Planning an empty message compiles the rules of everything that it can contain.
    const result = validatorOf(contract).validate(desc, fromBinary(desc, new Uint8Array()));
    if (result.kind === "error" && result.error.name === "CompilationError") {
      return `the validation rules of ${desc.typeName} don't compile: ${result.error.message}`;
    }
    const { fault } = rulesCostOf(desc, contract.registry);
    if (fault !== undefined) return `the validation rules of ${desc.typeName} are too much work: ${fault}`;
  }
  return undefined;
}

export type JsonToBytes = { ok: true; bytes: Uint8Array } | { ok: false; violations: readonly Violation[] };

/** Encodes canonical protobuf JSON, as text or as a parsed value, and checks it against the contract. */
export function jsonToBytes(contract: Contract, side: Side, json: string | { value: JsonValue }): JsonToBytes {
  const desc = contract[side];
  const read =
    typeof json === "string"
      ? parseProtobufJson(desc, json, contract.registry)
      : messageFromJson(desc, json.value, { registry: contract.registry });
  if (!read.ok) return { ok: false, violations: read.violations };
  const bytes = toBinary(desc, read.message);
  const violations = checkMessage(contract, side)(bytes);
  return violations.length === 0 ? { ok: true, bytes } : { ok: false, violations };
}

/** Canonical protobuf JSON of encoded bytes. Throws when they don't keep the contract's wire form. */
export function bytesToJson(contract: Contract, side: Side, bytes: Uint8Array, options: ToJsonOptions = {}): JsonValue {
  return messageToJson(contract[side], fromBinary(contract[side], bytes), { registry: contract.registry, ...options });
}

function compileCheck(contract: Contract, desc: DescMessage): MessageCheck {
  const wire = compileWireFault(desc);
  if (!hasRules(desc)) {
    return (bytes) => {
      const fault = wire(bytes);
      return fault === undefined ? kept : [fault];
    };
  }
  const validator = validatorOf(contract);
  const cost = rulesCostOf(desc, contract.registry);
  return (bytes) => {
    const fault = wire(bytes);
    if (fault !== undefined) return [fault];
    const message = fromBinary(desc, bytes);
    const excess = cost.excess(message, bytes.length);
    if (excess !== undefined) return [{ field: "", message: excess }];
    const result = validator.validate(desc, message);
    switch (result.kind) {
      case "valid":
        return kept;
      case "invalid":
        return result.violations.slice(0, violationsMax).map((violation) => ({
          field: pathToString(violation.field),
          message: violation.message,
        }));
      case "error":
        // A rule that divides by zero or the like says nothing good about the message.
        return [{ field: "", message: `a validation rule failed: ${result.error.message}` }];
    }
  };
}

/** More than this many violations help nobody and make errors too large for headers. */
const violationsMax = 20;

const validators = new WeakMap<Contract, Validator>();

/** One per contract: a validator keeps types by name, and names mean different types in different contracts. */
function validatorOf(contract: Contract): Validator {
  const existing = validators.get(contract);
  if (existing !== undefined) return existing;
  const regexMatch = (pattern: string, text: string): boolean => compilePattern(pattern).test(text);
  const validator = createValidator({ registry: contract.registry, regexMatch });
  validators.set(contract, validator);
  return validator;
}
