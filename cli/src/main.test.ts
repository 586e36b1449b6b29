import { spawn } from "node:child_process";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { taskmesh } from "../../test/fixtures/command-line.js";

const main = fileURLToPath(new URL("./main.ts", import.meta.url));
let server: Server | undefined;
afterEach(async () => {
  server?.closeAllConnections();
  await new Promise((resolve) => (server ? server.close(resolve) : resolve(undefined)));
  server = undefined;
});

/** A gateway that gives the same answer to everything that `answers` does not name by "METHOD path". */
async function serve(
  answers: Record<string, [status: number, body: unknown]>,
  fallback?: RequestListener,
): Promise<string> {
  const started = createServer((request, response) => {
    const [status, body] = answers[`${request.method} ${request.url?.split("?")[0]}`] ?? [
      404,
      { detail: "no such thing" },
    ];
    if (fallback && !(`${request.method} ${request.url?.split("?")[0]}` in answers)) return fallback(request, response);
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  });
  server = started;
  await new Promise<void>((resolve) => started.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(started.address() as AddressInfo).port}`;
}

/** As a process of its own, with something on its stdin. */
function taskmeshProcess(args: string[], input = ""): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, ["--import", "tsx", "--conditions=@taskmesh/source", main, ...args]);
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  child.stdin.end(input);
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, stdout, stderr })));
}

const failed = { runId: "r1", status: "RUN_STATUS_FAILED", failure: { reason: "HTTP_STATUS", message: "503" } };

describe("the program", () => {
  it("ends with 2 and the nearest name for a command that does not exist", async () => {
    const { code, stderr, stdout } = await taskmeshProcess(["runs", "lst"]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain("Did you mean list?");
  });

  it("ends with 0 for help, which names the exit codes", async () => {
    const { code, stdout } = await taskmesh("--help");
    expect(code).toBe(0);
    expect(stdout).toContain("3  the mesh can't be reached");
  });

  it("says its version, and leaves --version of a command to that", async () => {
    const version = expect.stringMatching(/^\d+\.\d+\.\d+\n$/);
    for (const option of ["--version", "-V"])
      expect(await taskmesh(option)).toMatchObject({ code: 0, stdout: version });
    const url = await serve({ "GET /api/v1/chains/a.v1.B/C": [200, { chain: { name: "a.v1.B/C", version: 2 } }] });
    const { stdout } = await taskmesh("chains", "show", "a.v1.B/C", "--version", "2", "--json", "--url", url);
    expect(JSON.parse(stdout)).toEqual({ chain: { name: "a.v1.B/C", version: 2 } });
  });

  it("ends with 2 for input that is not JSON, before anything is sent", async () => {
    const { code, stderr } = await taskmesh(
      "runs",
      "start",
      "a.v1.B/C",
      "--input",
      "{x",
      "--url",
      "http://127.0.0.1:9",
    );
    expect(code).toBe(2);
    expect(stderr).toContain("the input is not JSON");
  });

  it("ends with 2 for a signal's message without the signal, and for a callback without a token", async () => {
    const nowhere = ["--url", "http://127.0.0.1:9"];
    const signal = await taskmesh("runs", "start", "a.v1.B/C", "--signal-input", "{}", ...nowhere);
    expect([signal.code, signal.stderr]).toEqual([2, expect.stringContaining("need the signal's name")]);
    const callback = await taskmesh("runs", "callback", "http://mesh/api/v1/callbacks/", ...nowhere);
    expect([callback.code, callback.stderr]).toEqual([2, expect.stringContaining("has no token")]);
  });

  it("ends with 1 for a run that failed, with the failure on stderr and nothing on stdout", async () => {
    const url = await serve({ "GET /api/v1/runs/r1/result": [200, failed] });
    const { code, stdout, stderr } = await taskmesh("runs", "result", "r1", "--url", url);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toContain("run r1 ended FAILED: HTTP_STATUS: 503");
  });

  it("tells programs about errors as one document", async () => {
    const url = await serve({});
    const { code, stdout, stderr } = await taskmesh("runs", "show", "gone", "--json", "--url", url);
    expect([code, stdout]).toEqual([4, ""]);
    expect(JSON.parse(stderr)).toMatchObject({ error: { exitCode: 4, message: "no such thing" } });
  });

  it("prints the bare result of a run whose input came from stdin", async () => {
    const result = { runId: "r1", status: "RUN_STATUS_SUCCEEDED", output: { words: 2 } };
    const url = await serve({
      "POST /api/v1/runs": [201, { runId: "r1" }],
      "GET /api/v1/runs/r1/result": [200, result],
    });
    const { code, stdout } = await taskmeshProcess(
      ["runs", "start", "a.v1.B/C", "--input", "-", "--wait", "--url", url],
      "{}",
    );
    expect([code, stdout]).toEqual([0, '{"words":2}\n']);
  });

  it("watches as lines where there is no terminal, and ends as the run does", async () => {
    const run = { runId: "r1", method: "a.v1.B/C", status: "RUN_STATUS_RUNNING" };
    const url = await serve(
      { "GET /api/v1/runs/r1": [200, { run, steps: [] }], "GET /api/v1/runs/r1/result": [200, failed] },
      (_request, response) => {
        const events = [
          { seq: "1", kind: "EVENT_KIND_STEP_FAILED", stepId: "fetch", failure: failed.failure },
          { seq: "2", kind: "EVENT_KIND_RUN_ENDED", runStatus: "RUN_STATUS_FAILED" },
        ];
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.end(events.map((event) => `id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`).join(""));
      },
    );
    const { code, stdout, stderr } = await taskmesh("runs", "watch", "r1", "--url", url);
    expect(stdout).toBe("step failed  fetch  HTTP_STATUS: 503\nrun ended  FAILED\n");
    expect([code, stderr.split("\n")[0]]).toEqual([1, "run r1 ended FAILED: HTTP_STATUS: 503"]);
  });
});
