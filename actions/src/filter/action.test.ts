import { createServer } from "node:net";
import { Server, ServerCredentials, status } from "@grpc/grpc-js";
import { type RunActionOptions, runAction } from "@taskmesh/action-sdk/testing";
import { type FilterSeenRequest, SeenServiceService } from "@taskmesh/proto";
import { afterEach, describe, expect, it } from "vitest";
import { builtinDescriptors } from "../gen/descriptors.js";
import { FilterNewRequest } from "../gen/taskmesh/filter/v1/filter.js";
import { filterActions } from "./action.js";
import { createMeshSeenStore } from "./seen-store.js";

/** A coordinator at the socket: it keeps the first owner of each key, as the real one does in its tables. */
class SeenServer {
  readonly requests: FilterSeenRequest[] = [];
  readonly #owners = new Map<string, string>();
  readonly #server = new Server();
  failWith: status | undefined;

  async start(): Promise<number> {
    this.#server.addService(SeenServiceService, {
      filterSeen: (call: { request: FilterSeenRequest }, answer: (error: object | null, value?: object) => void) => {
        const { request } = call;
        this.requests.push(request);
        if (this.failWith !== undefined) return answer({ code: this.failWith, details: "not now" });
        const owner = `${request.runId}/${request.stepId}/${request.item}`;
        const fresh = request.keyHashes.map((hash) => {
          const key = `${request.set}/${hash.toString("hex")}`;
          if (!this.#owners.has(key)) this.#owners.set(key, owner);
          return this.#owners.get(key) === owner;
        });
        return answer(null, { fresh });
      },
    });
    return new Promise((done, reject) => {
      this.#server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
        error ? reject(error) : done(port),
      );
    });
  }
  stop(): void {
    this.#server.forceShutdown();
  }
}

describe("FilterNew", () => {
  let server: SeenServer;
  const begin = async () => {
    server = new SeenServer();
    const addresses = [{ host: "127.0.0.1", port: await server.start() }];
    const [action] = filterActions(createMeshSeenStore({ addresses }));
    return (items: string[], options: RunActionOptions = {}, set = "") =>
      runAction(action!, FilterNewRequest.fromPartial({ items, set }), { descriptors: builtinDescriptors, ...options });
  };
  afterEach(() => server?.stop());

  it("passes what is new, each once, in order, and the same to a repeated attempt", async () => {
    const filter = await begin();
    const first = await filter(["a", "b", "a", "c"], { runId: "one" });
    expect(first.output).toEqual({ items: ["a", "b", "c"], indexes: [0, 1, 3], dropped: 1 });
    expect((await filter(["d", "b"], { runId: "two" })).output).toEqual({ items: ["d"], indexes: [0], dropped: 1 });
    expect((await filter(["a", "b", "a", "c"], { runId: "one", attempt: 2 })).output).toEqual(first.output);
    expect((await filter(["a"], { runId: "three" }, "other")).output).toMatchObject({ items: ["a"] });
  });

  it("tells the mesh where it runs and only hashes of the items", async () => {
    const filter = await begin();
    await filter(["secret"], { namespace: "team", runId: "run", stepId: "step", item: 3 });
    const [request] = server.requests;
    expect(request).toMatchObject({ namespace: "team", runId: "run", stepId: "step", item: 3, set: "default" });
    expect(request!.keyHashes[0]!.toString("hex")).toBe(
      "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
    );
  });

  it("asks nothing about nothing", async () => {
    const filter = await begin();
    expect((await filter([])).output).toEqual({ items: [], indexes: [], dropped: 0 });
    expect(server.requests).toHaveLength(0);
  });

  it("takes 10,000 items of any text and refuses more", async () => {
    const filter = await begin();
    const items = Array.from({ length: 10_000 }, (_, index) => `${index}\0ü😀`);
    expect((await filter(items)).output).toMatchObject({ items, dropped: 0 });
    expect((await filter([...items, "x"])).failure).toMatchObject({ reason: "INPUT_INVALID" });
    expect((await filter([""])).failure).toMatchObject({ reason: "INPUT_INVALID" });
  });

  it("fails so that it can be tried again when the mesh cannot be asked", async () => {
    const filter = await begin();
    server.failWith = status.UNAVAILABLE;
    expect((await filter(["a"])).failure).toMatchObject({ reason: "SEEN_UNAVAILABLE", retryable: true });
    const closed = createServer();
    const port = await new Promise<number>((done) =>
      closed.listen(0, "127.0.0.1", () => done((closed.address() as { port: number }).port)),
    );
    await new Promise((done) => closed.close(done));
    const [action] = filterActions(createMeshSeenStore({ addresses: [{ host: "127.0.0.1", port }] }));
    const { failure } = await runAction(action!, FilterNewRequest.fromPartial({ items: ["a"] }));
    expect(failure).toMatchObject({ reason: "SEEN_UNAVAILABLE", retryable: true });
  });
});
