import { execFile } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type PostgresFixture, startPostgres } from "../../../test/fixtures/postgres.js";

let postgres: PostgresFixture;
let url: string;
beforeAll(async () => {
  postgres = await startPostgres();
  url = await postgres.createDatabase();
});
afterAll(() => postgres.dispose());

const root = join(import.meta.dirname, "../../..");
const program = join(import.meta.dirname, "cut-transaction-fixture.ts");

/** Runs the fixture; its exit code and what it printed. */
function run(): Promise<{ code: number; output: string }> {
  const node = ["--import", "tsx", "--conditions=@taskmesh/source", program, url];
  return new Promise((resolve) => {
    execFile(process.execPath, node, { cwd: root }, (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code ?? 1), output: out + err }),
    );
  });
}

describe("a process whose transaction loses its connection between two statements", () => {
  it("goes on, and its next statements are answered", async () => {
    const { code, output } = await run();
    expect(output.trim().split("\n")).toEqual(Array.from({ length: 5 }, () => ["cut", "answer 2"]).flat());
    expect(code).toBe(0);
  }, 90_000);
});
