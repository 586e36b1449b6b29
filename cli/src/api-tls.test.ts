import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createApi } from "./api.js";
import { resolveConnection } from "./config.js";
import { CliError, exitCode } from "./exit.js";

const folder = mkdtempSync(join(tmpdir(), "taskmesh-cli-tls-"));
const path = (name: string): string => join(folder, name);
const openssl = (...args: string[]): void => void execFileSync("openssl", args, { cwd: folder, stdio: "ignore" });
let server: Server;
let url = "";

/** A key and a certificate of the authority for 127.0.0.1. */
function issue(name: string): void {
  writeFileSync(path(`${name}.ext`), "subjectAltName=IP:127.0.0.1");
  const key = ["-newkey", "rsa:2048", "-nodes", "-keyout", `${name}.key`];
  openssl("req", ...key, "-subj", `/CN=${name}`, "-out", `${name}.csr`);
  const authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
  openssl("x509", "-req", "-in", `${name}.csr`, ...authority, "-extfile", `${name}.ext`, "-out", `${name}.pem`);
}

beforeAll(async () => {
  openssl(
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
    "-days",
    "2",
    "-subj",
    "/CN=ca",
  );
  issue("server");
  issue("client");
  const read = (name: string) => readFileSync(path(name));
  const options = { cert: read("server.pem"), key: read("server.key"), ca: read("ca.pem"), requestCert: true };
  server = createServer(options, (_request, response) => void response.end('{"workers":[]}'));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true });
});

const list = (env: Record<string, string>) =>
  createApi(resolveConnection({ url }, env))
    .call("GET", "/api/v1/workers")
    .catch((error: unknown) => error);

describe("a gateway that asks for client certificates", () => {
  const own = { TASKMESH_TLS_CERT: path("client.pem"), TASKMESH_TLS_KEY: path("client.key") };

  it("is reached with a certificate and the authority of its own", async () => {
    expect(await list({ ...own, TASKMESH_TLS_CA: path("ca.pem") })).toEqual({ workers: [] });
  });

  it.each([
    ["an authority that the machine does not know", own],
    ["no certificate to show", { TASKMESH_TLS_CA: path("ca.pem") }],
  ])("is not reached with %s, and the hint names the options", async (_what, env) => {
    const error = (await list(env)) as CliError;
    expect(error).toBeInstanceOf(CliError);
    expect(error.code).toBe(exitCode.unreachable);
    expect(error.hint).toContain("--tls-ca");
    expect(error.message.split("\n")).toHaveLength(1);
  });
});
