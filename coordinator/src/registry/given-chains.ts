/**
 * Chains that are given as data: stored, since their runs are pinned to them, and nobody's to call.
 *
 * Such a chain has a name of its own, made of what it says: equal data is one chain, and nobody's chain is written over. The name's package is
 * reserved, and it is no callable, so it is in no list, and no path is served for it.
 */
import { createHash } from "node:crypto";
import { ChainSpec } from "@taskmesh/proto";
import { givenPrefix } from "../store/given-chains.js";
import { specInOrder } from "./spec-order.js";

/** 64 bits tell the chains of a namespace apart; two that met would be two versions of one name. */
const hashChars = 16;
/** Characters of the author's name that stay. */
const nameChars = 40;

/** The chain under the name that its content gives it: `taskmesh.given.v1.Chains/Report_0a1b…` for one that calls itself acme.v1.X/Report. */
export function nameGiven(spec: ChainSpec): ChainSpec {
  const { name = "", input = {}, output = {} } = spec.contract ?? {};
  const bytes = ChainSpec.encode(specInOrder(spec)).finish();
  const hash = createHash("sha256").update(bytes).digest("hex").slice(0, hashChars);
  const shown = /^[A-Za-z][A-Za-z0-9_]*$/.exec(name.slice(name.lastIndexOf("/") + 1))?.[0] ?? "Chain";
  return { ...spec, contract: { name: `${givenPrefix}${shown.slice(0, nameChars)}_${hash}`, input, output } };
}
