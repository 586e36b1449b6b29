/** Who may call the gateway: tokens, client certificates, and pages of other sites. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request as httpsRequest } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Gateway, startGateway } from "@taskmesh/gateway";
import { ConfigError, gatewayConfig } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type ScriptedCoordinator, ScriptedState, startScriptedCoordinator } from "../fixtures/rest-coordinator.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";

let coordinator: ScriptedCoordinator;
let gateway: Gateway;
beforeAll(async () => {
  coordinator = await startScriptedCoordinator(new ScriptedState());
});
afterAll(() => coordinator.kill());
afterEach(() => gateway.stop());

const token = "correct-horse-battery-staple";

describe("with tokens", () => {
  it("asks for one everywhere but at the probes", async () => {
    gateway = await startTestGateway([coordinator.port], { tokens: { tokens: [token] } });
    const get = (path: string, authorization?: string) =>
      ask(gateway, path, { headers: authorization === undefined ? {} : { authorization } });
    for (const path of ["/", "/api/v1/runs", "/api/v1/runs/x/events", "/nothing", "/v1/a.B/C"]) {
      const answer = await get(path);
      expect(answer, path).toMatchObject({ status: 401, json: { reason: "TOKEN_MISSING" } });
      expect(answer.headers["www-authenticate"]).toContain("Bearer");
    }
    for (const path of ["/healthz", "/readyz"]) expect((await get(path)).status, path).toBe(200);
    expect(await get("/api/v1/runs", "Bearer wrong-wrong-wrong")).toMatchObject({
      status: 401,
      json: { reason: "TOKEN_INVALID" },
    });
    expect((await get("/api/v1/runs", `Basic ${token}`)).status).toBe(401);
    expect((await get("/api/v1/runs", `Bearer ${token}`)).status).toBe(200);
  });

  it("does not read a body before it has checked the token", async () => {
    gateway = await startTestGateway([coordinator.port], { tokens: { tokens: [token] } });
    const answer = await ask(gateway, "/v1/shop.v1.ShopActions/Echo", { body: "{".repeat(1_000_000) });
    expect(answer.status).toBe(401);
  });
});

describe("without credentials", () => {
  it.each([
    ["a page of another site", { origin: "https://evil.example" }],
    ["a page without an origin", { origin: "null" }],
    ["a request that the browser calls cross-site", { "sec-fetch-site": "cross-site" }],
    ["a name that was pointed here", { host: "evil.example" }],
    ["such a name with a port", { host: "evil.example:7480" }],
    ["a name that begins like ours", { host: "localhost.evil.example" }],
  ])("refuses %s", async (_, headers: Record<string, string>) => {
    gateway = await startTestGateway([coordinator.port]);
    const answer = await ask(gateway, "/api/v1/runs", { headers });
    expect(answer).toMatchObject({ status: 403, json: { reason: "ORIGIN_DENIED" } });
    expect(answer.headers["access-control-allow-origin"]).toBeUndefined();
  });

  it.each(["localhost:1", "127.0.0.1", "[::1]:7480"])("answers under the name %s", async (host) => {
    gateway = await startTestGateway([coordinator.port]);
    expect((await ask(gateway, "/api/v1/runs", { headers: { host } })).status).toBe(200);
  });

  it("sends headers that keep answers out of pages and caches", async () => {
    gateway = await startTestGateway([coordinator.port]);
    expect((await ask(gateway, "/api/v1/runs")).headers).toMatchObject({
      "x-content-type-options": "nosniff",
      "cache-control": "no-store",
      "content-security-policy": expect.stringContaining("default-src 'none'"),
      "taskmesh-request-id": expect.any(String),
    });
  });
});

describe("with TLS", () => {
  const folder = mkdtempSync(join(tmpdir(), "taskmesh-tls-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const path = (name: string) => join(folder, name);

  /** A certificate authority, and certificates of it for a server and a client. */
  function makeCertificates(): void {
    const openssl = (...args: string[]) => execFileSync("openssl", args, { stdio: "pipe" });
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"];
    openssl("req", "-x509", ...curve, "-keyout", path("ca.key"), "-out", path("ca.pem"), "-subj", "/CN=test-ca");
    for (const name of ["server", "client"]) {
      const alt = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
      const from = ["-CA", path("ca.pem"), "-CAkey", path("ca.key")];
      const to = ["-keyout", path(`${name}.key`), "-out", path(`${name}.pem`)];
      openssl("req", "-x509", ...curve, ...from, ...to, "-subj", `/CN=${name}`, ...alt);
    }
  }

  function get(options: { cert?: Buffer; key?: Buffer }): Promise<number | string> {
    const [host, port] = gateway.address.split(":");
    const ca = readFileSync(path("ca.pem"));
    return new Promise((resolve) => {
      const call = httpsRequest({ host, port, path: "/api/v1/runs", ca, agent: false, ...options }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      call.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
      call.end();
    });
  }

  it("takes clients with a certificate of its authority, and no others", async () => {
    makeCertificates();
    const config = gatewayConfig({
      TASKMESH_HTTP_ADDRESS: "127.0.0.1:0",
      TASKMESH_ADDRESS: `127.0.0.1:${coordinator.port}`,
      TASKMESH_TLS_CERT: path("server.pem"),
      TASKMESH_TLS_KEY: path("server.key"),
      TASKMESH_TLS_CLIENT_CA: path("ca.pem"),
      TASKMESH_LOG_LEVEL: "silent",
    });
    gateway = await startGateway(config);
    expect(gateway.url).toMatch(/^https:/);
    const pair = { cert: readFileSync(path("client.pem")), key: readFileSync(path("client.key")) };
    expect(await get(pair)).toBe(200);
    expect(await get({})).toEqual(expect.any(String));
  });

  it("is not started on a public address that nothing guards", async () => {
    gateway = await startTestGateway([coordinator.port]);
    expect(() => gatewayConfig({ TASKMESH_HTTP_ADDRESS: "0.0.0.0:7480" })).toThrow(ConfigError);
  });
});
