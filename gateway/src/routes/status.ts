/** Whether the gateway lives and can serve, and what it offers. */

import { declareMetrics, type MetricsExport, startMetrics } from "@taskmesh/runtime";
import type { FastifyInstance } from "fastify";
import type { GatewayContext } from "../context.js";

/** Registers the routes. */
export function statusRoutes(app: FastifyInstance, context: GatewayContext): void {
  // Load balancers like to ask with HEAD.
  const probe = { exposeHeadRoute: true };
  // That it answers is the answer: a database or coordinator that is away is no reason to restart a gateway.
  app.get("/healthz", probe, async () => ({ status: "alive" }));

  app.get("/readyz", probe, async (request, reply) => {
    const isReady = await context.ready(request.clientGone);
    return reply.code(isReady ? 200 : 503).send({ status: isReady ? "ready" : "no coordinator is serving" });
  });

  // The exporter is loaded when someone first asks: who has no Prometheus pays nothing for it.
  let metrics: Promise<MetricsExport> | undefined;
  app.get("/metrics", async (_request, reply) => {
    metrics ??= startMetrics();
    const { contentType, render } = await metrics;
    return reply.header("content-type", contentType).send(await render());
  });
  const undeclare = declareMetrics("gateway");
  app.addHook("onClose", async () => {
    undeclare();
    await (await metrics)?.stop();
  });

  app.get("/", async () => ({
    name: "taskmesh",
    links: {
      actions: "/api/v1/actions",
      action: "/api/v1/actions/{service}/{method}",
      workers: "/api/v1/workers",
      chains: "/api/v1/chains",
      chain: "/api/v1/chains/{service}/{method}",
      validateChain: "/api/v1/chains/validate",
      contracts: "/api/v1/contracts",
      contract: "/api/v1/contracts/{service}/{method}",
      checkContracts: "/api/v1/contracts/check",
      contractGate: "/api/v1/contracts/gate",
      fieldUses: "/api/v1/contracts/uses?field={field}",
      runs: "/api/v1/runs",
      run: "/api/v1/runs/{runId}",
      result: "/api/v1/runs/{runId}/result",
      events: "/api/v1/runs/{runId}/events",
      logs: "/api/v1/runs/{runId}/logs",
      cancel: "/api/v1/runs/{runId}/cancel",
      call: "/v1/{service}/{method}",
      routes: "/api/v1/routes",
      openApi: "/openapi.json",
      docs: "/docs",
      health: "/healthz",
      readiness: "/readyz",
      metrics: "/metrics",
    },
  }));
}
