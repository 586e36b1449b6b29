/**
 * The contract that a worker under test implements, compiled from conformance.proto, and its messages as plain objects.
 *
 * Registered once by each worker from the file that CONFORMANCE_DESCRIPTORS names, so that a worker needs no compiler of its own for them.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { create, type DescMessage, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type CompiledService, compileService } from "../fixtures/dynamic-actions.js";

/** Full name of the service; also the task queue that a worker under test listens on. */
export const serviceName = "conformance.v1.ConformanceActions";

export type Rpc = "Echo" | "Hold" | "Fail" | "Resume" | "Measure" | "Once";

/** Full name of a method. */
export const methodOf = (rpc: Rpc | "Missing"): string => `${serviceName}/${rpc}`;

/** Fields of a message, under their TypeScript names. */
export type Fields = Readonly<Record<string, unknown>>;

export interface WorkerContract {
  /** Encoded FileDescriptorSet, imports included. */
  readonly descriptorSet: Uint8Array;
  encodeRequest(rpc: Rpc, fields: Fields): Buffer;
  decodeResponse(rpc: Rpc, bytes: Uint8Array): Fields;
}

/** Compiles the contract; takes part of a second. */
export function compileContract(): WorkerContract {
  const text = readFileSync(join(import.meta.dirname, "conformance.proto"), "utf8");
  const compiled: CompiledService = compileService("conformance/v1/conformance.proto", text);
  const type = (name: string): DescMessage => compiled.message(`conformance.v1.${name}`);
  return {
    descriptorSet: compiled.descriptors,
    encodeRequest: (rpc, fields) => Buffer.from(toBinary(type(`${rpc}Request`), create(type(`${rpc}Request`), fields))),
    decodeResponse: (rpc, bytes) => fromBinary(type(`${rpc}Response`), bytes) as unknown as Fields,
  };
}
