/** `GET /openapi.json`: the live document of a namespace. */
import { createHash } from "node:crypto";
import type { FastifyInstance } from "fastify";
import type { GatewayContext } from "../context.js";
import type { ContractPage } from "../contract-book.js";
import type { HttpRoute } from "../http-routes.js";
import { DocumentBuilder } from "../openapi/document.js";
import { header, refuseQuery } from "../query.js";
import type { CallOptions } from "../upstream.js";

interface Written {
  version: string;
  document: Promise<{ text: string; etag: string }>;
}

/** Registers the route. */
export function openApiRoutes(app: FastifyInstance, context: GatewayContext): void {
  /** The newest document of each namespace: made once for each state of the registry. */
  const written = new Map<string, Written>();
  app.get("/openapi.json", async (request, reply) => {
    refuseQuery(request);
    const namespace = context.namespaceOf(request);
    const options = context.callOptions(request);
    const page = await context.book.page(namespace, options);
    let known = written.get(namespace);
    if (known?.version !== page.version) {
      known = { version: page.version, document: write(context, namespace, page, options) };
      written.set(namespace, known);
      const { document } = known;
      document.catch(() => {
        if (written.get(namespace)?.document === document) written.delete(namespace);
      });
    }
    const { text, etag } = await known.document;
    reply.header("etag", etag).header("cache-control", "no-cache");
    if (header(request, "if-none-match") === etag) return reply.code(304).send();
    return reply.header("content-type", "application/json; charset=utf-8").send(text);
  });
}

async function write(
  context: GatewayContext,
  namespace: string,
  page: ContractPage,
  { headers = {} }: CallOptions,
): Promise<{ text: string; etag: string }> {
  const { config, book } = context;
  const credentials = { bearer: config.tokens.tokens.length > 0, certificate: config.tls?.clientCa !== undefined };
  const builder = new DocumentBuilder({ namespace, credentials });
  const routes = new Map<string, HttpRoute[]>();
  for (const route of page.routes.served) {
    const { method } = route.contract;
    routes.set(method, [...(routes.get(method) ?? []), route]);
  }
  // Others may wait for the same document, so it does not end with the one who asked first.
  await book.forEach(
    namespace,
    page.contracts,
    { headers, signal: context.stopping },
    (contract, { method, chain }) => {
      builder.add(contract, chain, routes.get(method) ?? []);
    },
  );
  const text = `${JSON.stringify(builder.build(), undefined, 1)}\n`;
  return { text, etag: `"${createHash("sha256").update(text).digest("base64url").slice(0, 27)}"` };
}
