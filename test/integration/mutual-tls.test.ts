/** A mesh whose parts know each other by certificates, and its callers by token: coordinator, worker, gateway and a plain client. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defineAction, startWorker, type Worker } from "@taskmesh/action-sdk";
import { type Coordinator, createCoordinator, openPglite } from "@taskmesh/coordinator";
import { type Gateway, startGateway } from "@taskmesh/gateway";
import { RegistryServiceClient } from "@taskmesh/proto";
import {
  clientConfig,
  coordinatorConfig,
  createClient,
  createLogger,
  formatAddress,
  gatewayConfig,
  MemoryBus,
  setLogLevel,
  status,
  unaryCall,
} from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PageActionsService, pageDescriptors } from "../fixtures/page-actions.js";

const silent = createLogger("test", { level: "silent" });
const token = "token-of-the-callers-of-this-mesh";
const folder = mkdtempSync(join(tmpdir(), "taskmesh-mtls-"));
const path = (name: string): string => join(folder, name);
const openssl = (...args: string[]): void => void execFileSync("openssl", args, { cwd: folder, stdio: "ignore" });

/** A certificate of the authority, by the commands of docs/guides/security.md. */
function issue(name: string, extension: string): void {
  writeFileSync(path(`${name}.ext`), extension);
  const key = ["-newkey", "rsa:2048", "-nodes", "-keyout", `${name}.key`];
  openssl("req", ...key, "-subj", `/CN=${name}`, "-out", `${name}.csr`);
  const authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
  openssl("x509", "-req", "-in", `${name}.csr`, ...authority, "-extfile", `${name}.ext`, "-out", `${name}.pem`);
}

let coordinator: Coordinator;
let gateway: Gateway;
let worker: Worker;
let address: string;

beforeAll(async () => {
  setLogLevel("silent");
  openssl(
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-days",
    "2",
    "-subj",
    "/CN=ca",
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
  );
  issue("server", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth");
  issue("client", "extendedKeyUsage=clientAuth");
  const bus = new MemoryBus();
  const config = coordinatorConfig(
    {
      // Public, as the guard sees it: bound to all interfaces.
      TASKMESH_GRPC_ADDRESS: "0.0.0.0:0",
      TASKMESH_METRICS_ADDRESS: "off",
      TASKMESH_TLS_CERT: path("server.pem"),
      TASKMESH_TLS_KEY: path("server.key"),
      TASKMESH_TLS_CLIENT_CA: path("ca.pem"),
    },
    { embedded: true },
  );
  expect(config.warnings).toEqual([]);
  coordinator = createCoordinator(config, {
    database: await openPglite(),
    carrier: (id) => bus.carrier(id),
    exclusive: true,
  });
  await coordinator.start();
  address = formatAddress({ host: "localhost", port: coordinator.listener.address.port });
  const env = {
    TASKMESH_HTTP_ADDRESS: "127.0.0.1:0",
    TASKMESH_TOKEN: token,
    TASKMESH_ADDRESS: address,
    TASKMESH_TLS_CA: path("ca.pem"),
    TASKMESH_COORDINATOR_TLS_CERT: path("client.pem"),
    TASKMESH_COORDINATOR_TLS_KEY: path("client.key"),
  };
  gateway = await startGateway(gatewayConfig(env), { log: silent });
  worker = await startWorker({
    descriptors: pageDescriptors,
    actions: [defineAction(PageActionsService.score, async ({ text }) => ({ words: text.split(" ").length }))],
    address,
    tls: {
      ca: readFileSync(path("ca.pem"), "utf8"),
      cert: readFileSync(path("client.pem"), "utf8"),
      key: readFileSync(path("client.key"), "utf8"),
    },
    transports: ["relay"],
    handleSignals: false,
    quiet: true,
    logger: silent,
  });
});

afterAll(async () => {
  await worker.stop();
  await gateway.stop();
  await coordinator.stop();
  rmSync(folder, { recursive: true, force: true });
});

const listActions = async (env: Record<string, string>): Promise<string[]> => {
  const { namespace, ...channel } = clientConfig({ TASKMESH_ADDRESS: address, ...env });
  const client = createClient(RegistryServiceClient, channel);
  try {
    const { actions } = await unaryCall(client, client.listActions, { namespace }, { deadlineMs: 10_000 });
    return actions.map(({ method }) => method);
  } finally {
    client.close();
  }
};

describe("a mesh with client certificates", () => {
  it("runs an action from REST through gateway, coordinator and worker", async () => {
    const answer = await fetch(`${gateway.url}/v1/acme.pages.v1.PageActions/Score`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: '{"text":"a b c"}',
    });
    expect(await answer.json()).toEqual({ words: 3 });
    expect((await fetch(`${gateway.url}/api/v1/actions`)).status).toBe(401);
  });

  it("lets a client with a certificate of its authority in, as the environment configures it", async () => {
    const env = {
      TASKMESH_TLS_CA: path("ca.pem"),
      TASKMESH_TLS_CERT: path("client.pem"),
      TASKMESH_TLS_KEY: path("client.key"),
    };
    expect(await listActions(env)).toContain("acme.pages.v1.PageActions/Score");
  });

  it("keeps out who has none, whatever token it shows, and who speaks no TLS", async () => {
    const unavailable = { code: status.UNAVAILABLE };
    await expect(listActions({ TASKMESH_TLS_CA: path("ca.pem"), TASKMESH_TOKEN: token })).rejects.toMatchObject(
      unavailable,
    );
    await expect(listActions({ TASKMESH_TOKEN: token })).rejects.toMatchObject(unavailable);
  });
});
