/** `error` as expressions read it: the failure that they answer. */
import { fromBinary, type Registry } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import type { Any, Failure } from "@taskmesh/proto";
import type { CelInput } from "./engine-values.js";

/** The variable; details of types that none of the registries knows are maps with "@type" alone. */
export function errorVariable(failure: Failure | undefined, registries: readonly Registry[]): Map<string, CelInput> {
  return new Map<string, CelInput>([
    ["reason", failure?.reason ?? ""],
    ["message", failure?.message ?? ""],
    ["details", (failure?.details ?? []).map((detail) => detailOf(detail, registries))],
  ]);
}

function detailOf({ typeUrl, value }: Any, registries: readonly Registry[]): CelInput {
  const name = typeUrl.slice(typeUrl.lastIndexOf("/") + 1);
  for (const registry of registries) {
    const desc = registry.getMessage(name);
    if (desc === undefined) continue;
    try {
      return reflect(desc, fromBinary(desc, value));
    } catch {
      // Not what it says it is: shown as a detail of an unknown type, since a handler's mistake must not hide the failure.
      break;
    }
  }
  return new Map([["@type", typeUrl]]);
}
