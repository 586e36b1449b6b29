/**
 * Who may call the gateway.
 *
 * With tokens or client certificates configured, every route but the two probes wants one of them. Without, the gateway listens on
 * loopback only, and what remains to keep out are web pages: a page of another site can make a browser send requests to this
 * machine, also under a name that it has pointed here. Such requests show in the headers Host, Origin and Sec-Fetch-Site.
 */
import type { TLSSocket } from "node:tls";
import { bearerToken, createTokenCheck, type GatewayConfig, isLoopback, statusError } from "@taskmesh/runtime";
import type { FastifyRequest } from "fastify";
import { header } from "./query.js";
import { docsPaths } from "./routes/docs.js";

/** Routes that need no credential: what orchestrators probe, which tells nothing else, and the page of the API document, which holds nothing. */
const openPaths = new Set(["/healthz", "/readyz", ...docsPaths]);
/** Its last part is a token of its own, good for one answer to one step. */
const callbackPaths = "/api/v1/callbacks/";

/** Makes the check that every request passes first; it throws TOKEN_MISSING, TOKEN_INVALID or ORIGIN_DENIED. */
export function createAccessCheck(config: GatewayConfig): (request: FastifyRequest) => void {
  const tokens = createTokenCheck(config.tokens);
  const takesCertificates = config.tls?.clientCa !== undefined;
  const isOpen = !tokens.required && !takesCertificates;
  return (request) => {
    checkOrigin(request, isOpen ? config.httpAddress.host : undefined);
    if (isOpen || openPaths.has(request.url.split("?", 1)[0]!) || request.url.startsWith(callbackPaths)) return;
    const token = bearerToken(header(request, "authorization"));
    if (token !== undefined && tokens.required) {
      if (tokens.accepts(token)) return;
      throw statusError({ reason: "TOKEN_INVALID", message: "the bearer token is not one of the gateway's" });
    }
    if (takesCertificates && (request.raw.socket as TLSSocket).authorized) return;
    throw statusError({ reason: "TOKEN_MISSING", message: "a bearer token is required" });
  };
}

/** `openHost`: the address that an unguarded gateway listens on; requests must then name it, or loopback. */
function checkOrigin(request: FastifyRequest, openHost: string | undefined): void {
  const host = header(request, "host") ?? "";
  const origin = header(request, "origin");
  if (origin !== undefined && hostOf(origin) !== host.toLowerCase()) {
    throw statusError({ reason: "ORIGIN_DENIED", message: "requests of pages from other origins are not answered" });
  }
  const site = header(request, "sec-fetch-site");
  if (site === "cross-site" || site === "same-site") {
    throw statusError({ reason: "ORIGIN_DENIED", message: "requests of pages from other sites are not answered" });
  }
  if (openHost === undefined) return;
  const name = host
    .replace(/:\d+$/, "")
    .replace(/^\[|\]$/g, "")
    .toLowerCase();
  if (isLoopback(name) || name === openHost) return;
  const message = "without credentials the gateway answers under loopback names only, such as localhost or 127.0.0.1";
  throw statusError({ reason: "ORIGIN_DENIED", message });
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}
