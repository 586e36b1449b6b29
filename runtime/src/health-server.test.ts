import { request } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import { createHealthServer, type HealthServer, type HealthServerOptions } from "./health-server.js";
import { createLogger } from "./log.js";

const silent = createLogger("test", { level: "silent" });
let server: HealthServer | undefined;
afterEach(() => server?.stop());

async function serve(ready: HealthServerOptions["ready"], patienceMs = 2_000): Promise<string> {
  server = createHealthServer({ address: { host: "127.0.0.1", port: 0 }, ready, patienceMs, log: silent });
  await server.start();
  return `http://127.0.0.1:${server.address?.port}`;
}

const statusOf = async (url: string, method = "GET"): Promise<number> => (await fetch(url, { method })).status;

describe("probes", () => {
  it("are answered by what holds at the moment", async () => {
    let isReady = false;
    const url = await serve(() => isReady);
    expect([await statusOf(`${url}/livez`), await statusOf(`${url}/readyz`)]).toEqual([200, 503]);
    isReady = true;
    expect(await (await fetch(`${url}/readyz?verbose`)).text()).toBe("ready\n");
    expect(await statusOf(`${url}/readyz`, "HEAD")).toBe(200);
  });

  it("find a process alive whatever readiness does: hang, fail or throw", async () => {
    const never = new Promise<boolean>(() => {});
    const answers = [() => never, () => Promise.reject(new Error("away")), () => thrown()];
    for (const ready of answers) {
      const url = await serve(ready, 20);
      expect(await statusOf(`${url}/readyz`)).toBe(503);
      expect(await statusOf(`${url}/livez`)).toBe(200);
      await server?.stop();
    }
  });

  it("give the question up when nobody waits for its answer", async () => {
    let asked: AbortSignal | undefined;
    const url = await serve((signal) => {
      asked = signal;
      return new Promise(() => {});
    }, 20);
    expect(await statusOf(`${url}/readyz`)).toBe(503);
    expect(asked?.aborted).toBe(true);
  });

  it("learn nothing else", async () => {
    const url = await serve(() => true);
    expect([await statusOf(url), await statusOf(`${url}/metrics`), await statusOf(`${url}/livez`, "POST")]).toEqual([
      404, 404, 405,
    ]);
  });
});

describe("the health server", () => {
  it("does not start on an address that is taken", async () => {
    await serve(() => true);
    const second = createHealthServer({ address: server!.address, ready: () => true, log: silent });
    await expect(second.start()).rejects.toThrow("EADDRINUSE");
    await second.stop();
  });

  it("serves nothing without an address", async () => {
    const none = createHealthServer({ ready: () => true, log: silent });
    await none.start();
    expect([none.running, none.address]).toEqual([true, undefined]);
    await none.stop();
  });

  it("stops though a probe keeps its connection open", async () => {
    const url = await serve(() => new Promise<boolean>(() => {}), 60_000);
    const held = request(`${url}/readyz`);
    const cut = new Promise((resolve) => held.once("error", resolve));
    await new Promise<void>((resolve) => {
      held.once("socket", (socket) => socket.once("connect", () => resolve()));
      held.end();
    });
    await server?.stop();
    await cut;
  });
});

function thrown(): never {
  throw new Error("broken");
}
