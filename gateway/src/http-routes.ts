/**
 * The HTTP routes that the contracts of a namespace declare with google.api.http.
 *
 * R1. The mesh's own paths are never given away: a template that begins with one of them is not served.
 * R2. Of two contracts with templates of one shape and method, the one that was registered first has it, whatever came later; the
 *     other is listed with what is wrong. So every gateway serves the same, and no newcomer takes a route from who has it.
 * R3. `POST /v1/{service}/{method}` of a registered method is always that method.
 */
import { METHODS } from "node:http";
import { type HttpBinding, type PathTemplate, readHttpBindings } from "@taskmesh/runtime";
import type { Contract } from "./contracts.js";
import { type PathMatch, PathTree } from "./path-tree.js";

/** A declared route with the contract that it calls. */
export interface HttpRoute {
  binding: HttpBinding;
  contract: Contract;
}

/** A declared route as people see it. */
export interface ListedRoute {
  verb: string;
  path: string;
  /** The action or chain that it calls. */
  method: string;
  body: string;
  responseBody: string;
  /** Why it is not served; empty: it is. */
  problem: string;
}

/** Templates of one namespace, found by path. */
export class HttpRoutes {
  private readonly tree = new PathTree<HttpRoute>();
  /** What is served, in order of methods and declarations. */
  readonly served: HttpRoute[] = [];
  private readonly all: ListedRoute[] = [];

  /** `contracts`: in the order of their first registration. `methods`: every action and chain of the namespace. */
  constructor(contracts: readonly Contract[], methods: ReadonlySet<string>) {
    for (const contract of contracts) this.addContract(contract, methods);
    const order = (a: ListedRoute, b: ListedRoute) => compare(a.method, b.method);
    this.all.sort(order);
    this.served.sort((a, b) => compare(a.contract.method, b.contract.method));
  }

  /** The route of a request; `path` without the query, as it was sent. */
  find(verb: string, path: string): PathMatch<HttpRoute> | undefined {
    return isOwnPath(path) ? undefined : this.tree.find(verb, path);
  }

  /** Methods that a declared route takes at the path. */
  verbsOf(path: string): string[] {
    if (isOwnPath(path)) return [];
    return this.tree.methodsOf(path).flatMap((verb) => (verb === "*" ? commonVerbs : verb));
  }

  /** Every declared route by method, those that are not served with the reason. */
  get listed(): readonly ListedRoute[] {
    return this.all;
  }

  private addContract(contract: Contract, methods: ReadonlySet<string>): void {
    if (contract.rpc === undefined) return;
    const { method } = contract;
    const { bindings, faults } = readHttpBindings(contract.rpc);
    for (const binding of bindings) {
      const problem = this.addBinding({ binding, contract }, methods) ?? "";
      const body = binding.body === "*" ? "*" : (binding.body?.name ?? "");
      const responseBody = binding.responseBody?.name ?? "";
      this.all.push({ verb: binding.verb, path: binding.template.text, method, body, responseBody, problem });
    }
    for (const { verb, path, message } of faults) {
      this.all.push({ verb, path, method, body: "", responseBody: "", problem: message });
    }
  }

  private addBinding(route: HttpRoute, methods: ReadonlySet<string>): string | undefined {
    const { template, verb } = route.binding;
    const [first] = template.segments;
    if (template.segments.length === 0 || (first?.kind === "literal" && ownSegments.has(first.text))) {
      return "the path belongs to the mesh itself";
    }
    if (verb !== "*" && !METHODS.includes(verb)) return `${verb} is no method that an HTTP server knows`;
    const plain = plainMethodOf(template);
    if ((verb === "POST" || verb === "*") && plain !== undefined && methods.has(plain)) {
      return plain === route.contract.method ? undefined : `the path is the plain call of ${plain}`;
    }
    const other = this.tree.add(verb, template, route);
    if (other !== undefined) {
      const owner = other.contract.method;
      return owner === route.contract.method
        ? "the contract declares the path twice"
        : `the path belongs to ${owner}, which was registered before`;
    }
    this.served.push(route);
    return undefined;
  }
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** What "any method" is worth in the header Allow. */
const commonVerbs = ["DELETE", "GET", "PATCH", "POST", "PUT"];

/** First segments of the mesh's own paths. */
const ownSegments = new Set(["api", "healthz", "readyz", "metrics", "docs", "openapi.json"]);

/** Whether a path is the mesh's own, served or not, however its first segment is escaped. */
export function isOwnPath(path: string): boolean {
  const first = path.split("/", 2)[1] ?? "";
  try {
    return first === "" || ownSegments.has(decodeURIComponent(first));
  } catch {
    return true;
  }
}

/** The method whose plain call a template of literals is. */
function plainMethodOf({ segments, verb }: PathTemplate): string | undefined {
  const [version, service, method] = segments.map((segment) => (segment.kind === "literal" ? segment.text : undefined));
  const isPlain = segments.length === 3 && verb === "" && version === "v1";
  return isPlain && service !== undefined && method !== undefined ? `${service}/${method}` : undefined;
}
