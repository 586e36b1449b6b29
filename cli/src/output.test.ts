import pc from "picocolors";
import { describe, expect, it } from "vitest";
import { terminalFacts } from "./config.js";
import { createOutput, drawTable, fitColumns, plain } from "./output.js";

const colors = pc.createColors(false);

describe("output", () => {
  it("shows control characters instead of sending them to the terminal", () => {
    expect(plain("a\u001b[31mred\u0007\u009b\tb\n")).toBe("a\\x1b[31mred\\x07\\x9b\tb\\x0a");
    expect(plain("a\nb\u202e", { lines: true })).toBe("a\nb\\u202e");
  });

  it("cuts the widest columns first, and none below what can be read", () => {
    expect(fitColumns([10, 40, 5], 40)).toEqual([10, 21, 5]);
    expect(fitColumns([10, 40], 5)).toEqual([6, 6]);
    expect(fitColumns([3, 4], 80)).toEqual([3, 4]);
  });

  it("never draws a line wider than the terminal, and cuts nothing where there is none", () => {
    const rows = [["short", "x".repeat(200)]];
    const lines = drawTable(["A", "B"], rows, colors, 60).split("\n");
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(60);
    expect(lines[1]).toMatch(/…$/);
    expect(drawTable(["A", "B"], rows, colors)).toContain("x".repeat(200));
  });

  it("measures coloured cells by what is seen", () => {
    const red = pc.createColors(true).red("no");
    expect(drawTable(["A", "B"], [[red, "b"]], colors, 80).split("\n")[1]).toBe(`${red}  b`);
  });

  it("writes nothing but documents to stdout with --json, and no document without it", () => {
    const write = (json: boolean) => {
      const said: string[] = [];
      const to = { write: (text: string) => said.push(text) };
      const out = createOutput(json, { color: false, live: false, width: undefined, height: undefined }, to, {
        write: () => {},
      });
      out.line("line");
      out.table(["A"], [["1"]]);
      out.document({ a: 1 });
      out.note("note");
      return said.join("");
    };
    expect(write(true)).toBe('{"a":1}\n');
    expect(write(false)).toBe("line\nA\n1\n");
  });

  it("honours NO_COLOR, FORCE_COLOR and a dumb terminal", () => {
    const terminal = { isTTY: true, columns: 100 };
    expect(terminalFacts(terminal, {})).toEqual({ color: true, live: true, width: 100, height: 24 });
    expect(terminalFacts(terminal, { NO_COLOR: "1" }).color).toBe(false);
    expect(terminalFacts(terminal, { NO_COLOR: "1", FORCE_COLOR: "1" }).color).toBe(false);
    expect(terminalFacts(terminal, { TERM: "dumb" })).toMatchObject({ color: false, live: false });
    expect(terminalFacts({}, { FORCE_COLOR: "1" })).toMatchObject({ color: true, live: false, width: undefined });
    expect(terminalFacts({}, {}).color).toBe(false);
  });
});
