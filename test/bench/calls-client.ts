/** A stock client of Count: the same stub whoever serves it. */
import { credentials, Metadata } from "@grpc/grpc-js";
import { BenchActionsClient, type CountResponse } from "./gen/acme/bench/v1/bench.js";
import { pad, serveAsks } from "./load.js";

const client = new BenchActionsClient(process.env["BENCH_ADDRESS"] ?? "", credentials.createInsecure());
const call = (run: bigint): Promise<CountResponse> =>
  new Promise((resolve, reject) => {
    const deadline = Date.now() + 60_000;
    client.count({ counter: 0, run, pad }, new Metadata(), { deadline }, (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });

// A method appears a moment after its worker.
for (let tries = 1; ; tries++) {
  const served = await call(0n).then(
    () => true,
    () => false,
  );
  if (served) break;
  if (tries === 100) throw new Error("nobody serves Count");
  await new Promise((resolve) => setTimeout(resolve, 200));
}

serveAsks(async (i) => {
  const { counter, run } = await call(BigInt(i));
  return counter === 1 && run === BigInt(i);
});
