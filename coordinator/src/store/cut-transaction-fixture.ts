/** A process of its own for postgres-transactions.test.ts: cuts the connection of a transaction between two statements, then asks again. */
import { setTimeout as sleep } from "node:timers/promises";
import { openPostgres } from "./postgres.js";

const url = process.argv[2] ?? "";
const db = openPostgres({ url, connectionsMax: 1 });
const other = openPostgres({ url, connectionsMax: 1 });
for (let round = 1; round <= 5; round++) {
  const cut = db.transaction(async (tx) => {
    const [row] = await tx.query<{ pid: number }>("select pg_backend_pid() as pid");
    await other.query("select pg_terminate_backend($1::int)", [row?.pid]);
    await sleep(200);
    await tx.query("select 1 as one");
  });
  await cut.then(
    () => console.log("the cut transaction went through"),
    () => console.log("cut"),
  );
  const [answer] = await db.query<{ two: number }>("select 1 + 1 as two");
  console.log(`answer ${answer?.two}`);
}
await Promise.all([db.close(), other.close()]);
