import { createLogger, formatAddress } from "@taskmesh/runtime";
import { expect, it } from "vitest";
import { freePort } from "../../test/fixtures/ports.js";
import { joinHealth } from "./health.js";

const log = createLogger("test", { level: "silent" });

it("workers of one process share an address, which is ready when all are and closes behind the last", async () => {
  const address = { host: "127.0.0.1", port: await freePort() };
  const ask = async (): Promise<number> => (await fetch(`http://${formatAddress(address)}/readyz`)).status;
  let second = false;
  const leaves = await Promise.all([
    joinHealth({ address, ready: () => true, log }),
    joinHealth({ address, ready: () => second, log }),
  ]);
  expect(await ask()).toBe(503);
  second = true;
  expect(await ask()).toBe(200);
  second = false;
  await leaves[1]!();
  expect(await ask()).toBe(200);
  await leaves[1]!();
  await leaves[0]!();
  await expect(ask()).rejects.toThrow();
  const again = await joinHealth({ address, ready: () => true, log });
  expect(await ask()).toBe(200);
  await again();
});
