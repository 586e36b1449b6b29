/** What simulated steps launch by name: always the chain that a mesh's other one may call. */

import type { Value } from "../../coordinator/src/engine/plan.js";
import { value } from "../../coordinator/src/engine/plan-fixture.js";
import type { Launcher } from "../../coordinator/src/pipeline/ports.js";
import type { Chain } from "./chains.js";
import { decode, launchAnswer, readLaunch } from "./kinds.js";

export function createLauncher(chain: Chain, payloads: ReadonlyMap<string, Uint8Array>): Launcher {
  const textOf = (stored: Value): string => {
    const bytes = stored.bytes ?? payloads.get(stored.reference ?? "");
    return decode({ ...stored, ...(bytes ? { bytes } : {}) });
  };
  return {
    read: async (_namespaceId, kind, input) => {
      const { text, left } = readLaunch(textOf(input));
      return { kind, method: chain.plan.method, input: text, labels: {}, detached: left };
    },
    prepare: async (_namespaceId, { input }) => ({ plan: chain.plan, input: value(`${input}`) }),
    answer: async (_namespaceId, _runId, output) => value(launchAnswer(output && textOf(output))),
  };
}
