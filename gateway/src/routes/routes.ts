/** The HTTP routes that contracts declare, and what keeps one from being served. */
import type { FastifyInstance } from "fastify";
import type { GatewayContext } from "../context.js";
import { refuseQuery } from "../query.js";

/** Registers the route. */
export function routeRoutes(app: FastifyInstance, context: GatewayContext): void {
  app.get("/api/v1/routes", async (request) => {
    refuseQuery(request);
    const { routes } = await context.book.page(context.namespaceOf(request), context.callOptions(request));
    return { routes: routes.listed };
  });
}
