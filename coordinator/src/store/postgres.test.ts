import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type PostgresFixture, startPostgres } from "../../../test/fixtures/postgres.js";
import type { Database } from "./db.js";
import { openPostgres } from "./postgres.js";

let postgres: PostgresFixture;
let db: Database;
beforeAll(async () => {
  postgres = await startPostgres();
  db = openPostgres({ url: await postgres.createDatabase(), connectionsMax: 1 });
});
afterAll(async () => {
  await db.close();
  await postgres.dispose();
});

describe("a statement after one that failed when it had given rows", () => {
  it("gives its own rows and nothing else", async () => {
    const failing = db.query("select 1 / (5 - i) as one from generate_series(1, 9) as i");
    await expect(failing).rejects.toThrow("division by zero");
    expect(await db.query("select i from generate_series(1, 3) as i")).toEqual([{ i: 1 }, { i: 2 }, { i: 3 }]);
    expect(await db.query("select i from generate_series(1, 2) as i")).toEqual([{ i: 1 }, { i: 2 }]);
  });
});
