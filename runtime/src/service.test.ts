import { spawn } from "node:child_process";
import { describe, expect, it } from "vitest";
import { createLogger } from "./log.js";
import { createService, runService, type Service, serviceGroup } from "./service.js";

const silent = createLogger("test", { level: "silent" });

/** A service that checks that its start and stop alternate and never overlap. */
function strict(options: { startMs?: () => number; fail?: () => boolean } = {}) {
  let open = 0;
  let busy = false;
  const faults: string[] = [];
  const pause = (signal?: AbortSignal) =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, options.startMs?.() ?? 0);
      const giveUp = (): void => {
        clearTimeout(timer);
        resolve();
      };
      signal?.addEventListener("abort", giveUp, { once: true });
    });
  const exclusively = async (what: string, work: () => Promise<void>): Promise<void> => {
    if (busy) faults.push(`${what} overlaps`);
    busy = true;
    try {
      await work();
    } finally {
      busy = false;
    }
  };
  const service = createService("strict", {
    start: (signal) =>
      exclusively("start", async () => {
        await pause(signal);
        if (options.fail?.()) throw new Error("can't");
        open += 1;
        if (open !== 1) faults.push(`open ${open} times`);
      }),
    stop: () =>
      exclusively("stop", async () => {
        await pause();
        open -= 1;
        if (open !== 0) faults.push(`closed to ${open}`);
      }),
  });
  return { service, faults, open: () => open };
}

/** A generator of numbers that repeats with its seed. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("a service", () => {
  it("starts once for starts at once, and stops once", async () => {
    const { service, open, faults } = strict();
    await Promise.all([service.start(), service.start(), service.start()]);
    expect([service.running, open()]).toEqual([true, 1]);
    await Promise.all([service.stop(), service.stop()]);
    await service.stop();
    expect([service.running, open(), faults]).toEqual([false, 0, []]);
  });

  it("gives a start up when it is stopped meanwhile, and tells the starter", async () => {
    let waits = 0;
    const { service, open } = strict({ startMs: () => (waits++ === 0 ? 3_600_000 : 0) });
    const started = service.start();
    const outcome = expect(started).rejects.toThrow("was stopped while it started");
    await new Promise(setImmediate);
    const stopped = service.stop();
    await outcome;
    await stopped;
    expect([service.running, open()]).toEqual([false, 0]);
  });

  it("stays stopped after a failed start, and can be started again", async () => {
    let fail = true;
    const { service, open } = strict({ fail: () => fail });
    await expect(service.start()).rejects.toThrow("can't");
    await service.stop();
    fail = false;
    await service.start();
    expect([service.running, open()]).toEqual([true, 1]);
    await service.stop();
  });

  it.each([1, 2, 3, 4, 5, 6, 7, 8])(
    "stands a storm of starts and stops and ends as asked last (seed %i)",
    async (seed) => {
      const next = random(seed);
      const { service, faults, open } = strict({ startMs: () => Math.floor(next() * 3), fail: () => next() < 0.1 });
      const calls: Promise<unknown>[] = [];
      for (let i = 0; i < 300; i += 1) {
        calls.push((next() < 0.5 ? service.start() : service.stop()).catch(() => {}));
        if (next() < 0.3) await new Promise((resolve) => setTimeout(resolve, Math.floor(next() * 3)));
      }
      await Promise.all(calls);
      await service.stop();
      expect([service.running, open(), faults]).toEqual([false, 0, []]);
    },
  );
});

describe("a group", () => {
  const part = (name: string, story: string[], fail = ""): Service =>
    createService(name, {
      start() {
        if (fail === "start") throw new Error(`${name} can't start`);
        story.push(`+${name}`);
      },
      stop() {
        story.push(`-${name}`);
        if (fail === "stop") throw new Error(`${name} can't stop`);
      },
    });

  it("starts in order and stops in the opposite one", async () => {
    const story: string[] = [];
    const group = serviceGroup(
      "all",
      ["a", "b", "c"].map((name) => part(name, story)),
    );
    await group.start();
    await group.stop();
    expect(story).toEqual(["+a", "+b", "+c", "-c", "-b", "-a"]);
  });

  it("stops what had started when a later part can't", async () => {
    const story: string[] = [];
    const group = serviceGroup("all", [part("a", story), part("b", story), part("c", story, "start")]);
    await expect(group.start()).rejects.toThrow("c can't start");
    expect(story).toEqual(["+a", "+b", "-b", "-a"]);
    expect(group.running).toBe(false);
  });

  it("stops all though one can't", async () => {
    const story: string[] = [];
    const group = serviceGroup("all", [part("a", story), part("b", story, "stop"), part("c", story)]);
    await group.start();
    await expect(group.stop()).rejects.toThrow("all did not stop cleanly");
    expect(story.slice(3)).toEqual(["-c", "-b", "-a"]);
  });

  it("gives up the part that is starting", async () => {
    const story: string[] = [];
    const stuck = createService("stuck", {
      start: (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve())),
      stop: () => void story.push("-stuck"),
    });
    const group = serviceGroup("all", [part("a", story), stuck]);
    const started = group.start();
    await expect.poll(() => story, { timeout: 10_000 }).toEqual(["+a"]);
    await Promise.all([group.stop(), expect(started).rejects.toThrow()]);
    expect(story).toEqual(["+a", "-stuck", "-a"]);
  });
});

describe("running a service", () => {
  it("stops when asked to, and says whether it could", async () => {
    const until = new AbortController();
    const { service } = strict();
    const ended = runService(service, { log: silent, until: until.signal, onRunning: () => until.abort() });
    expect(await ended).toBe(0);
    expect(service.running).toBe(false);
    const failing = strict({ fail: () => true });
    expect(await runService(failing.service, { log: silent })).toBe(1);
    const stuck = createService("stuck", { start() {}, stop: () => new Promise(() => {}) });
    expect(await runService(stuck, { log: silent, until: AbortSignal.abort(), stopTimeoutMs: 50 })).toBe(1);
    expect(process.listenerCount("SIGTERM")).toBe(0);
  });

  const program = (stop: string): string => `
    import { createLogger, createService, runService } from "@taskmesh/runtime";
    const service = createService("program", { start() {}, stop: ${stop} });
    const keepAlive = setInterval(() => {}, 1000);
    const code = await runService(service, { log: createLogger("program"), onRunning: () => console.log("up") });
    clearInterval(keepAlive);
    process.exitCode = code;
  `;

  /** Starts the program, sends signals, and returns its exit code. */
  async function run(source: string, signals: NodeJS.Signals[]): Promise<number | null> {
    const args = ["--import", "tsx", "--conditions=@taskmesh/source", "--input-type=module", "-e", source];
    const child = spawn(process.execPath, args, { cwd: import.meta.dirname, stdio: ["ignore", "pipe", "ignore"] });
    try {
      const exited = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
      await new Promise((resolve) => child.stdout.once("data", resolve));
      for (const signal of signals) {
        child.kill(signal);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      return await exited;
    } finally {
      child.kill("SIGKILL");
    }
  }

  it("ends with 0 after SIGTERM", async () => {
    expect(await run(program("() => {}"), ["SIGTERM"])).toBe(0);
  });

  it("ends at once on a second signal", async () => {
    expect(await run(program("() => new Promise(() => {})"), ["SIGINT", "SIGINT"])).toBe(130);
  });
});
