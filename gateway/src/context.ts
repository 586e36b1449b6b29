/** What every route works with. */

import { type GatewayConfig, type Logger, shorten, statusError } from "@taskmesh/runtime";
import type { FastifyRequest } from "fastify";
import type { ContractBook } from "./contract-book.js";
import type { ContractCache } from "./contracts.js";
import { header } from "./query.js";
import { RunView } from "./run-view.js";
import type { CallOptions, Upstream } from "./upstream.js";

declare module "fastify" {
  interface FastifyRequest {
    /** Aborts when the client has gone or has its answer. */
    clientGone: AbortSignal;
    /** W3C trace context for calls made on behalf of the request. */
    traceHeaders: Readonly<Record<string, string>>;
  }
}

export class GatewayContext {
  constructor(
    readonly config: GatewayConfig,
    readonly log: Logger,
    readonly upstream: Upstream,
    readonly contracts: ContractCache,
    readonly book: ContractBook,
    /** Aborts when the gateway stops. */
    readonly stopping: AbortSignal,
  ) {}

  /** Whether requests can be served now: the gateway does not stop, and a coordinator says that it is serving. */
  async ready(signal: AbortSignal): Promise<boolean> {
    return !this.stopping.aborted && (await this.upstream.ready(signal));
  }

  /** The namespace that a request is about: `?namespace=`, the header Taskmesh-Namespace, or the default. */
  namespaceOf(request: FastifyRequest): string {
    const { namespace } = request.query as { namespace?: string | string[] };
    const given = typeof namespace === "string" && namespace !== "" ? namespace : header(request, "taskmesh-namespace");
    return this.checkNamespace(given);
  }

  /** `given` if it is served here, the default namespace if it is absent. */
  checkNamespace(given: string | undefined): string {
    const { namespaces } = this.config;
    if (given === undefined || given === "") return namespaces[0] ?? "default";
    if (namespaces.includes(given)) return given;
    throw statusError({
      reason: "NAMESPACE_NOT_FOUND",
      message: `there is no namespace ${JSON.stringify(shorten(given))} here`,
      metadata: { namespace: shorten(given) },
    });
  }

  /** Options of the calls that answer a request. */
  callOptions(request: FastifyRequest, timeoutMs?: number): CallOptions {
    const options = { signal: request.clientGone, headers: request.traceHeaders };
    return timeoutMs === undefined ? options : { ...options, timeoutMs };
  }

  /** A view for one answer. */
  view(request: FastifyRequest): RunView {
    return new RunView(this.upstream, this.contracts, this.callOptions(request));
  }
}
