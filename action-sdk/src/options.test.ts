import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TransportKind } from "@taskmesh/proto";
import { ConfigError } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { PageActionsService, pageDescriptors } from "../../test/fixtures/page-actions.js";
import { defineAction } from "./define.js";
import { resolveOptions, type WorkerOptions } from "./options.js";

const score = defineAction(PageActionsService.score, async () => ({ words: 1 }));
const echo = defineAction(PageActionsService.echo, async ({ data }) => ({ data }), { taskQueue: "bulk" });
const base: WorkerOptions = { descriptors: pageDescriptors, actions: [score] };

function faultsOf(options: WorkerOptions, env: Record<string, string> = {}): string[] {
  try {
    resolveOptions(options, env);
  } catch (error) {
    if (error instanceof ConfigError) return error.faults.map((fault) => `${fault.variable}: ${fault.problem}`);
    throw error;
  }
  return [];
}

describe("worker options", () => {
  it("have defaults that reach a mesh on this machine", () => {
    const config = resolveOptions(base, {});
    expect(config.client).toMatchObject({ addresses: [{ host: "127.0.0.1", port: 7400 }], namespace: "default" });
    expect(config).toMatchObject({ slots: 10, drainTimeoutMs: 30_000, handleSignals: true, quiet: false });
    expect(config.transports).toEqual([TransportKind.TRANSPORT_KIND_JETSTREAM, TransportKind.TRANSPORT_KIND_RELAY]);
    expect(config.queues).toEqual([
      { taskQueue: "acme.pages.v1.PageActions", methods: ["acme.pages.v1.PageActions/Score"] },
    ]);
  });

  it("let nobody from elsewhere read metrics without the worker's token", () => {
    const env = { TASKMESH_WORKER_METRICS_ADDRESS: "0.0.0.0:7491" };
    expect(faultsOf(base, env)).toEqual([
      "TASKMESH_WORKER_METRICS_ADDRESS: 0.0.0.0:7491 can be reached from other machines, and nothing guards it",
    ]);
    expect(faultsOf(base, { ...env, TASKMESH_TOKEN: "0123456789abcdef0123456789abcdef" })).toEqual([]);
    expect(resolveOptions({ ...base, metricsAddress: "127.0.0.1:7491" }, env).metricsAddress?.port).toBe(7491);
    expect(resolveOptions(base, {}).metricsAddress).toBeUndefined();
  });

  it("beat the environment, which beats the defaults", () => {
    const env = {
      TASKMESH_ADDRESS: "env:1",
      TASKMESH_NAMESPACE: "from-env",
      TASKMESH_SLOTS: "3",
      TASKMESH_TOKEN: "env-token-1",
      TASKMESH_DRAIN_TIMEOUT_SECONDS: "600",
      TASKMESH_HEALTH_ADDRESS: ":7470",
    };
    const fromEnv = resolveOptions(base, env);
    expect(fromEnv).toMatchObject({ drainTimeoutMs: 600_000, healthAddress: { host: "0.0.0.0", port: 7470 } });
    expect(resolveOptions({ ...base, drainTimeoutMs: 0, healthAddress: "off" }, env)).toMatchObject({
      drainTimeoutMs: 0,
      healthAddress: undefined,
    });
    expect(faultsOf({ ...base, healthAddress: "here" }, env)).toEqual([
      'healthAddress: "here" is neither host:port nor off',
    ]);
    expect(fromEnv.client).toMatchObject({
      addresses: [{ host: "env", port: 1 }],
      namespace: "from-env",
      token: "env-token-1",
    });
    expect(fromEnv.slots).toBe(3);
    const given = { address: ["a:1", "b:2"], namespace: "mine", slots: 7, token: "my-token-1" };
    const config = resolveOptions({ ...base, ...given }, { ...env, TASKMESH_TOKEN_FILE: "/nowhere" });
    expect(config.client).toMatchObject({ namespace: "mine", token: "my-token-1" });
    expect(config.client.addresses.map((address) => address.host)).toEqual(["a", "b"]);
    expect(config.slots).toBe(7);
  });

  it("take TLS as texts, or as files from the environment", () => {
    const folder = mkdtempSync(join(tmpdir(), "sdk-options-"));
    writeFileSync(join(folder, "ca.pem"), "CA");
    const env = { TASKMESH_TLS_CA: join(folder, "ca.pem") };
    expect(resolveOptions(base, env).client.tls).toEqual({ ca: "CA" });
    expect(resolveOptions({ ...base, tls: { ca: "MINE" } }, env).client.tls).toEqual({ ca: "MINE" });
    expect(faultsOf({ ...base, tls: { cert: "C" } })).toEqual(["tls: has only one of cert and key"]);
  });

  it("group actions by task queue", () => {
    const { queues } = resolveOptions({ ...base, actions: [score, echo], taskQueue: "all" }, {});
    expect(queues.map((queue) => queue.taskQueue)).toEqual(["all", "bulk"]);
  });

  it("report every fault at once, under the name that was used", () => {
    const faults = faultsOf(
      {
        ...base,
        actions: [score, score],
        address: "no port",
        slots: 0,
        drainTimeoutMs: -1,
        transports: [],
        taskQueue: "a b",
      },
      { TASKMESH_NAMESPACE: "Not A Name" },
    );
    for (const name of [
      "address",
      "slots",
      "TASKMESH_NAMESPACE",
      "actions",
      "taskQueue",
      "drainTimeoutMs",
      "transports",
    ]) {
      expect(
        faults.filter((fault) => fault.startsWith(`${name}:`)),
        name,
      ).not.toEqual([]);
    }
    expect(faultsOf({ descriptors: "§", actions: [] })).toEqual([
      "descriptors: descriptors are not base64",
      "actions: is empty",
    ]);
  });
});
