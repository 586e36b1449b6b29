/** ChainService: checks, stores and shows chains. */
import {
  type Chain,
  type ChainServiceServer,
  ChainSpec,
  type GetChainResponse,
  type ListChainsResponse,
  type PutChainResponse,
  type ValidateChainResponse,
} from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import { splitMethod } from "../contracts/contract.js";
import type { Registry } from "../registry/registry.js";
import { type ChainRow, listChains, readChain } from "../store/chains.js";
import type { Db } from "../store/db.js";
import { unary } from "./calls.js";
import { writePageToken } from "./page-token.js";

const pageSizeDefault = 100;
const pageSizeMax = 1_000;
const versionMax = 2 ** 31 - 1;

export interface ChainServiceOptions {
  db: Db;
  registry: Pick<Registry, "namespaces" | "chainSave">;
}

/** Makes the service. */
export function createChainService({ db, registry }: ChainServiceOptions): ChainServiceServer {
  const { namespaces, chainSave: save } = registry;
  return {
    validateChain: unary(async (request): Promise<ValidateChainResponse> => {
      const namespace = await namespaces.resolve(request.namespace);
      return save.validate(namespace.id, specOf(request.spec));
    }),
    putChain: unary(async (request): Promise<PutChainResponse> => {
      const namespace = await namespaces.resolve(request.namespace);
      const { requireLiveWorkers } = request;
      const { chain, created, warnings } = await save.put(namespace.id, specOf(request.spec), { requireLiveWorkers });
      return { chain: toChain(namespace.name, chain), created, warnings };
    }),
    getChain: unary(async (request): Promise<GetChainResponse> => {
      const namespace = await namespaces.resolve(request.namespace);
      const { name, version } = request;
      const known = splitMethod(name) !== undefined && version <= versionMax;
      const row = known ? await readChain(db, namespace.id, name, version) : undefined;
      if (!row) {
        const which = version === 0 ? "" : `version ${version} of `;
        const message = `there is no ${which}chain ${JSON.stringify(name.slice(0, 120))}`;
        throw statusError({ reason: "CHAIN_NOT_FOUND", message });
      }
      return { chain: toChain(namespace.name, row) };
    }),
    listChains: unary(async (request): Promise<ListChainsResponse> => {
      const namespace = await namespaces.resolve(request.namespace);
      const limit = Math.min(request.pageSize || pageSizeDefault, pageSizeMax);
      const rows = await listChains(db, namespace.id, readNameToken(request.pageToken), limit + 1);
      const page = rows.slice(0, limit);
      const last = page.at(-1);
      return {
        chains: page.map((row) => toChain(namespace.name, row)),
        nextPageToken: rows.length > limit && last ? writePageToken(last.name) : "",
      };
    }),
  };
}

/** An absent spec is an empty one: the check says what it lacks. */
const specOf = (spec: ChainSpec | undefined): ChainSpec => spec ?? ChainSpec.create();

/** The name that a page begins behind, "" for the first page. */
function readNameToken(token: string): string {
  if (token === "") return "";
  const text = Buffer.from(token.slice(0, 1_024), "base64url").toString("utf8");
  if (text.startsWith("1") && splitMethod(text.slice(1)) && writePageToken(text.slice(1)) === token)
    return text.slice(1);
  throw statusError({
    reason: "PAGE_TOKEN_INVALID",
    message: "page_token is not one that this API gave out; leave it empty for the first page",
    fieldViolations: [{ field: "page_token", description: "is not a token of an earlier answer" }],
  });
}

function toChain(namespace: string, row: ChainRow): Chain {
  return {
    namespace,
    name: row.name,
    version: row.version,
    spec: ChainSpec.decode(row.spec),
    contract: row.contract,
    createdAt: {
      seconds: BigInt(Math.floor(row.createdAtMs / 1000)),
      nanos: Math.floor((row.createdAtMs % 1000) * 1e6),
    },
    edges: row.edges,
  };
}
