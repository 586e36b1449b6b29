/** Count as a plain grpc-js server: what a call costs that nothing stands behind. */
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { type BenchActionsServer, BenchActionsService } from "./gen/acme/bench/v1/bench.js";

const server = new Server();
const service: BenchActionsServer = {
  count: (call, callback) => callback(null, { ...call.request, counter: call.request.counter + 1 }),
};
server.addService(BenchActionsService, service);
await new Promise<void>((resolve, reject) => {
  const address = process.env["BENCH_ADDRESS"] ?? "";
  server.bindAsync(address, ServerCredentials.createInsecure(), (error) => (error ? reject(error) : resolve()));
});
process.on("disconnect", () => process.exit(0));
process.on("SIGTERM", () => process.exit(0));
process.send?.("ready");
