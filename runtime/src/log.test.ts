import { describe, expect, it } from "vitest";
import { createLogger, hideSecret, type LogOptions, redact, setLogLevel } from "./log.js";

const capture = (options: LogOptions = {}) => {
  const lines: string[] = [];
  const log = createLogger("test", { level: "info", ...options, write: (line) => lines.push(line) });
  return { log, lines };
};

describe("log", () => {
  it("writes one JSON object a line, with time, level as a word, name and message", () => {
    const { log, lines } = capture({ fields: { run_id: "r1" } });
    log.warn({ step_id: "fetch" }, "slow\nstep");
    expect(lines).toHaveLength(1);
    expect(lines[0]?.trimEnd()).not.toContain("\n");
    const line = JSON.parse(lines[0]!);
    expect(line).toMatchObject({ level: "warn", name: "test", run_id: "r1", step_id: "fetch", msg: "slow\nstep" });
    expect(Number.isNaN(Date.parse(line.time))).toBe(false);
  });

  it.each([
    ["a password in a URL", "connect postgres://mesh:hunter2x@db:5432/mesh failed", "hunter2x"],
    ["a bearer token", "header Authorization: Bearer abcdefghijkl.mnop", "abcdefghijkl"],
    ["a NATS seed", "seed SUAGMJH5XLGZKQQWAWKRZJIGMOU4HPFUYLXJMXOO5NLFEO2OOQJ5LPRDPM was refused", "SUAGMJH5"],
    ["a JWT", "jwt eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl", "c2lnbmF0dXJl"],
  ])("blanks %s, in messages, fields and errors", (_what, text, secret) => {
    const { log, lines } = capture();
    log.info(text);
    log.info({ nested: { deep: [text] } }, "field");
    log.error({ err: new Error(text, { cause: new Error(text) }) }, "error");
    expect(lines).toHaveLength(3);
    for (const line of lines) {
      expect(line).not.toContain(secret);
      expect(line).toContain("[hidden]");
      JSON.parse(line);
    }
  });

  it("blanks fields whose names tell what they are", () => {
    const { log, lines } = capture();
    log.info(
      { user_seed: 's3cr3t"quoted', headers: { Authorization: "x y z", cookie: "c=1" }, apiKey: "k", tokens: 3 },
      "m",
    );
    const line = JSON.parse(lines[0]!);
    expect(line).toMatchObject({
      user_seed: "[hidden]",
      headers: { Authorization: "[hidden]", cookie: "[hidden]" },
      apiKey: "[hidden]",
      tokens: 3,
    });
  });

  it("blanks values that were declared secret, also where JSON escapes them", () => {
    hideSecret('p"ss\\word-of-ours');
    const { log, lines } = capture();
    log.info({ note: 'uses p"ss\\word-of-ours here' }, "m");
    expect(JSON.parse(lines[0]!).note).toBe("uses [hidden] here");
    hideSecret("abc");
    expect(redact("abc")).toBe("abc");
  });

  it("leaves ordinary text alone", () => {
    const ordinary = '{"url":"http://localhost:8000/a@b","msg":"basic math: a token ring, SUBTLE"}';
    expect(redact(ordinary)).toBe(ordinary);
  });

  it("follows a level that is set later", () => {
    const lines: string[] = [];
    const log = createLogger("late", { write: (line) => lines.push(line) });
    setLogLevel("error");
    log.info("no");
    setLogLevel("info");
    log.info("yes");
    expect(lines.map((line) => JSON.parse(line).msg)).toEqual(["yes"]);
  });
});
