/** The calls of RegistryService about namespaces. */
import type { Namespace, RegistryServiceServer } from "@taskmesh/proto";
import type { Namespaces } from "../registry/namespaces.js";
import type { Db } from "../store/db.js";
import { readNamespace, retentionDaysMax, setRetention } from "../store/namespaces.js";
import { unary } from "./calls.js";
import { invalid } from "./given-value.js";

/** Makes the handlers. */
export function namespaceCalls(
  db: Db,
  namespaces: Pick<Namespaces, "resolve">,
): Pick<RegistryServiceServer, "getNamespace" | "updateNamespace"> {
  const show = async (id: number): Promise<Namespace> => {
    const { name, retentionDays, createdAtMs } = await readNamespace(db, id);
    const createdAt = {
      seconds: BigInt(Math.floor(createdAtMs / 1000)),
      nanos: Math.floor((createdAtMs % 1000) * 1e6),
    };
    return { name, retentionDays, createdAt };
  };
  return {
    getNamespace: unary(async (request) => ({
      namespace: await show((await namespaces.resolve(request.namespace)).id),
    })),
    updateNamespace: unary(async (request) => {
      const { id } = await namespaces.resolve(request.namespace);
      const days = request.retentionDays;
      if (days !== undefined) {
        if (days < 1 || days > retentionDaysMax) {
          const message = `must be 1 to ${retentionDaysMax} days`;
          throw invalid("ARGUMENT_INVALID", [{ field: "retention_days", message }]);
        }
        await setRetention(db, id, days);
      }
      return { namespace: await show(id) };
    }),
  };
}
