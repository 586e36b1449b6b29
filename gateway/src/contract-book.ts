/**
 * What is registered, as the gateway needs it for routes and for the API document: read when someone asks, at most two seconds old,
 * kept while nothing changes.
 */
import { type ListContractsResponse, type ListedContract, RegistryServiceService } from "@taskmesh/proto";
import { isStatusError, type Logger, status } from "@taskmesh/runtime";
import { type Contract, type ContractCache, neverAborted } from "./contracts.js";
import { HttpRoutes } from "./http-routes.js";
import type { CallOptions, Upstream } from "./upstream.js";

/** The contracts of a namespace at one moment. */
export interface ContractPage {
  /** Names the state: equal versions have equal contracts. */
  version: string;
  contracts: readonly ListedContract[];
  routes: HttpRoutes;
}

/** As long as coordinators take to agree on what is registered. */
const pageMaxAgeMs = 2_000;
/** Contracts that are fetched at once. */
const fetchesMax = 16;

interface Kept {
  page: Promise<ContractPage>;
  /** The newest page that was read; what is asked about again. */
  last: ContractPage | undefined;
  untilMs: number;
}

export class ContractBook {
  private readonly namespaces = new Map<string, Kept>();

  constructor(
    private readonly upstream: Upstream,
    private readonly contracts: ContractCache,
    private readonly log: Logger,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** What is registered in a namespace now. Rejects as calls to coordinators do. */
  page(namespace: string, options: CallOptions): Promise<ContractPage> {
    const known = this.namespaces.get(namespace);
    if (known !== undefined && known.untilMs > this.now()) return known.page;
    // Others may share the answer, so it does not end with the one who asked first.
    const shared = { ...options, signal: neverAborted };
    const kept: Kept = {
      page: this.read(namespace, known?.last, shared),
      last: known?.last,
      untilMs: this.now() + pageMaxAgeMs,
    };
    this.namespaces.set(namespace, kept);
    kept.page.then(
      (page) => {
        kept.last = page;
      },
      () => {
        kept.untilMs = 0;
      },
    );
    return kept.page;
  }

  /** Fetches contracts of a page, a few at a time; `take` sees each and nothing is kept for it. */
  async forEach(
    namespace: string,
    listed: readonly ListedContract[],
    options: CallOptions,
    take: (contract: Contract, entry: ListedContract) => void,
  ): Promise<void> {
    for (let at = 0; at < listed.length; at += fetchesMax) {
      const entries = listed.slice(at, at + fetchesMax);
      const found = await Promise.all(
        entries.map((entry) => this.contracts.revision(namespace, entry.contract, options)),
      );
      found.forEach((contract, index) => {
        take(contract, entries[index]!);
      });
    }
  }

  private async read(namespace: string, last: ContractPage | undefined, options: CallOptions): Promise<ContractPage> {
    const request = { namespace, knownVersion: last?.version ?? "" };
    const answer = await this.upstream.call(RegistryServiceService.listContracts, request, options).catch(noList);
    if (last !== undefined && answer.version === last.version) return last;
    const declaring: Contract[] = [];
    const inOrder = answer.contracts.filter(({ http }) => http).sort((a, b) => a.place - b.place);
    await this.forEach(namespace, inOrder, options, (contract) => declaring.push(contract));
    const methods = new Set(answer.contracts.map(({ method }) => method));
    const page = { version: answer.version, contracts: answer.contracts, routes: new HttpRoutes(declaring, methods) };
    this.reportProblems(namespace, page, last);
    return page;
  }

  private reportProblems(namespace: string, page: ContractPage, last: ContractPage | undefined): void {
    const known = new Set(last?.routes.listed.map((route) => JSON.stringify(route)));
    for (const route of page.routes.listed) {
      if (route.problem === "" || known.has(JSON.stringify(route))) continue;
      this.log.warn({ namespace, ...route }, "a declared route is not served");
    }
  }
}

/** A coordinator of an earlier release has no list; plain calls work without one. */
function noList(error: unknown): ListContractsResponse {
  if (isStatusError(error) && error.code === status.UNIMPLEMENTED) return { version: "", contracts: [] };
  throw error;
}
