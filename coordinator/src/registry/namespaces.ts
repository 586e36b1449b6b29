/** Namespaces by name, as this coordinator knows them. */
import { type Service, statusError } from "@taskmesh/runtime";
import type { Db } from "../store/db.js";
import { ensureNamespaces, readNamespaces } from "../store/registry.js";
import { createPart } from "./part.js";

/** A name that is not known is looked up in the database at most this often, so that wrong names cost nothing. */
const lookupEveryMs = 1_000;

/** A namespace that exists. */
export interface Namespace {
  id: number;
  name: string;
}

export interface Namespaces extends Service {
  /** The namespace of a request; an empty name is `default`. Rejects: NOT_FOUND / NAMESPACE_NOT_FOUND. */
  resolve(name: string): Promise<Namespace>;
  /** Name of a namespace that was resolved or existed at the start. */
  nameOf(id: number): string | undefined;
}

/** Keeps the namespaces in memory; `names` are made if they are missing. */
export function createNamespaces(db: Db, names: readonly string[]): Namespaces {
  const byName = new Map<string, Namespace>();
  const byId = new Map<number, string>();
  let lookedUpAt = Number.NEGATIVE_INFINITY;
  const load = async (): Promise<void> => {
    lookedUpAt = performance.now();
    for (const row of await readNamespaces(db)) {
      byName.set(row.name, row);
      byId.set(row.id, row.name);
    }
  };
  return createPart("namespaces", {
    async start() {
      await ensureNamespaces(db, names);
      await load();
    },
    stop() {},
    extra: {
      async resolve(name: string): Promise<Namespace> {
        const wanted = name === "" ? "default" : name;
        if (!byName.has(wanted) && performance.now() - lookedUpAt >= lookupEveryMs) await load();
        const found = byName.get(wanted);
        if (found) return found;
        const shown = wanted.length <= 64 ? wanted : `${wanted.slice(0, 64)}…`;
        throw statusError({ reason: "NAMESPACE_NOT_FOUND", message: `there is no namespace "${shown}"` });
      },
      nameOf: (id: number) => byId.get(id),
    },
  });
}
