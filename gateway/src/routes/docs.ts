/**
 * `GET /docs`: the interactive page of the API document.
 *
 * Everything comes from this gateway, and nothing runs that is not a file of it: the page works under a policy without inline scripts and
 * without other origins. It holds no secret, so it needs no credential; the document that it loads does, and the page asks for the token.
 */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { FastifyInstance } from "fastify";
import { pageHtml, pageScript, pageStyle } from "../openapi/page.js";

const SECONDS_OF_A_DAY = 86_400;

interface Asset {
  type: string;
  read(): Promise<Buffer>;
}

const library = dirname(createRequire(import.meta.url).resolve("swagger-ui-dist/package.json"));
const file =
  (name: string): Asset["read"] =>
  async () =>
    readFile(join(library, name));
const own =
  (text: string): Asset["read"] =>
  async () =>
    Buffer.from(text);

const assets: Readonly<Record<string, Asset>> = {
  "/docs": { type: "text/html", read: own(pageHtml) },
  "/docs/page.js": { type: "text/javascript", read: own(pageScript) },
  "/docs/page.css": { type: "text/css", read: own(pageStyle) },
  "/docs/swagger-ui.js": { type: "text/javascript", read: file("swagger-ui-bundle.js") },
  "/docs/swagger-ui.css": { type: "text/css", read: file("swagger-ui.css") },
};

/** Paths that anybody may read. */
export const docsPaths: readonly string[] = Object.keys(assets);

/** Images in styles are data; all else is a file of this gateway. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** Registers the routes. */
export function docsRoutes(app: FastifyInstance): void {
  const known = new Map<string, Promise<{ bytes: Buffer; etag: string }>>();
  const load = (path: string, asset: Asset): Promise<{ bytes: Buffer; etag: string }> => {
    const loading =
      known.get(path) ??
      asset.read().then((bytes) => ({
        bytes,
        etag: `"${createHash("sha256").update(bytes).digest("base64url").slice(0, 27)}"`,
      }));
    known.set(path, loading);
    loading.catch(() => known.delete(path));
    return loading;
  };
  for (const [path, asset] of Object.entries(assets)) {
    app.get(path, async (request, reply) => {
      const { bytes, etag } = await load(path, asset);
      reply.header("content-security-policy", policy).header("etag", etag);
      reply.header("cache-control", `private, max-age=${path === "/docs" ? 0 : SECONDS_OF_A_DAY}`);
      if (request.headers["if-none-match"] === etag) return reply.code(304).send();
      return reply.header("content-type", `${asset.type}; charset=utf-8`).send(bytes);
    });
  }
}
