import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { lockFolder } from "./folder-lock.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "taskmesh-lock-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const program = `
  import { lockFolder } from ${JSON.stringify(new URL("./folder-lock.ts", import.meta.url).href)};
  try { lockFolder(process.argv[1], "a test"); console.log("held"); setInterval(() => {}, 1000); }
  catch (error) { console.log("refused"); }
`;

function startHolder() {
  const args = ["--import", "tsx", "--input-type=module", "-e", program, folder];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const said = once(child.stdout, "data").then(([chunk]) => String(chunk).trim());
  return { child, said };
}

describe("the lock of a data folder", () => {
  it("refuses a second holder and names the first", () => {
    lockFolder(folder, "REST http://127.0.0.1:1");
    expect(() => lockFolder(folder, "second")).toThrow(new RegExp(`process ${process.pid} .*REST http://127.0.0.1:1`));
  });

  it("is free again after it was unlocked, any number of times, and leaves one file", () => {
    for (let round = 0; round < 5; round += 1) lockFolder(folder, "again")();
    expect(readdirSync(folder)).toEqual(["lock.5"]);
  });

  it("does not outlive a holder that was killed", async () => {
    const { child, said } = startHolder();
    expect(await said).toBe("held");
    expect(() => lockFolder(folder, "second")).toThrow(/in use by process/);
    child.kill("SIGKILL");
    await once(child, "exit");
    lockFolder(folder, "after the kill")();
  });

  it("does not take a process that got the same id later for the holder", () => {
    const former = { pid: process.pid, started: "another start", host: hostname(), note: "gone" };
    writeFileSync(join(folder, "lock.7"), JSON.stringify(former));
    lockFolder(folder, "now");
    expect(readdirSync(folder)).toEqual(["lock.8"]);
  });

  it("takes over a lock file that holds garbage", () => {
    writeFileSync(join(folder, "lock.3"), "{");
    lockFolder(folder, "now");
    expect(readdirSync(folder)).toEqual(["lock.4"]);
  });

  it("gives the folder of a dead holder to exactly one of several processes", async () => {
    writeFileSync(
      join(folder, "lock.1"),
      JSON.stringify({ pid: 999_999_999, started: "x", host: hostname(), note: "gone" }),
    );
    const holders = [1, 2, 3, 4].map(startHolder);
    try {
      const answers = await Promise.all(holders.map(({ said }) => said));
      expect(answers.sort()).toEqual(["held", "refused", "refused", "refused"]);
    } finally {
      for (const { child } of holders) child.kill("SIGKILL");
    }
  });
});
