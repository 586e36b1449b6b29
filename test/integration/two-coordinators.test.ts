/** Several coordinators serve the same contracts, wherever their workers are registered; open calls do not notice what comes and goes. */
import { type ActionContext, defineStream } from "@taskmesh/action-sdk";
import { type Address, formatAddress, status } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type CompiledService, compileService } from "../fixtures/dynamic-actions.js";
import { echoAction } from "../fixtures/echo-actions.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { openStockCaller, type StockCaller } from "../fixtures/stock-caller.js";

const wait = { timeout: 60_000, interval: 50 };
const text = (value: string): Buffer => Buffer.concat([Buffer.from([0x0a, value.length]), Buffer.from(value)]);
const textOf = (message: Buffer | undefined): string => message?.subarray(2).toString() ?? "";

function contractsOf(name: string, rpcs: string, more = ""): CompiledService {
  const source = `syntax = "proto3"; package acme.${name}.v1; service Actions { ${rpcs} } message Text { string text = 1; ${more} }`;
  return compileService(`acme/${name}.proto`, source);
}

const open = contractsOf("open", "rpc Hold(Text) returns (Text); rpc Spell(Text) returns (stream Text);");
const hold = "acme.open.v1.Actions/Hold";
const spell = "acme.open.v1.Actions/Spell";

let mesh: InProcessMesh;
let first: StockCaller;
let second: StockCaller;
let secondAddress: Address;
/** Holds handlers back until it is called. */
let goOn: () => void = () => {};
const held = new Promise<void>((resolve) => {
  goOn = resolve;
});

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "servers" });
  const other = await mesh.join();
  secondAddress = other.listener.address;
  first = openStockCaller(mesh.address);
  second = openStockCaller(secondAddress);
  const actions = [
    echoAction(hold, () => held),
    defineStream(open.entry(spell), async function* ({ text: word }: { text: string }, context: ActionContext) {
      for (const letter of word.slice(0, 2)) yield { text: letter };
      await Promise.race([held, new Promise((_, reject) => context.signal.addEventListener("abort", reject))]);
      for (const letter of word.slice(2)) yield { text: letter };
    }),
  ];
  const worker = await mesh.serve(actions, { descriptors: open.descriptors, transports: ["jetstream"] });
  expect(worker.address).toBe(formatAddress(mesh.address));
}, 180_000);
afterAll(async () => {
  first?.close();
  second?.close();
  await mesh?.stop();
});

/** Calls until the method is there. */
const answered = (caller: StockCaller, method: string): Promise<string> =>
  vi.waitFor(async () => textOf((await caller.call(method, text("hi"), { deadlineMs: 5_000 }).done)[0]), wait);

describe("two coordinators", () => {
  it("serve what is registered at one of them, and calls in the middle go on whatever comes and goes", async () => {
    // Open at the coordinator that does not hold the worker's session.
    const unary = await vi.waitFor(async () => {
      const call = second.call(hold, text("held"), { deadlineMs: 300_000 });
      await call.runId;
      return call;
    }, wait);
    const stream = second.call(spell, text("abcd"), { deadlineMs: 300_000 });
    await vi.waitFor(() => expect(stream.messages.map(textOf)).toEqual(["a", "b"]), wait);

    // Others come, at either coordinator, and answer at both.
    const one = contractsOf("one", "rpc Echo(Text) returns (Text);");
    const two = contractsOf("two", "rpc Echo(Text) returns (Text);");
    const workers = [
      await mesh.serve([echoAction("acme.one.v1.Actions/Echo")], { descriptors: one.descriptors }),
      await mesh.serve([echoAction("acme.two.v1.Actions/Echo")], {
        descriptors: two.descriptors,
        address: formatAddress(secondAddress),
        transports: ["relay"],
      }),
    ];
    for (const caller of [first, second]) {
      for (const name of ["one", "two"]) expect(await answered(caller, `acme.${name}.v1.Actions/Echo`)).toBe("hi");
    }
    // A newer revision of the open contract comes too, and everything that came leaves.
    const newer = contractsOf("open", "rpc Hold(Text) returns (Text);", "string note = 2;");
    workers.push(await mesh.serve([echoAction(hold)], { descriptors: newer.descriptors }));
    expect(await answered(first, hold)).toBe("hi");
    expect(await answered(second, hold)).toBe("hi");
    await Promise.all(workers.map((worker) => worker.stop()));

    expect(unary.messages).toEqual([]);
    goOn();
    expect((await unary.done).map(textOf)).toEqual(["held"]);
    // Over JetStream, from a worker of one coordinator to a caller of the other.
    expect((await stream.done).map(textOf)).toEqual(["a", "b", "c", "d"]);
    expect((await stream.trailer).get("taskmesh-outputs-missed")).toEqual([]);
  });

  it("answer a call whose worker has left through its run, which waits for another", async () => {
    const method = "acme.one.v1.Actions/Echo";
    const late = second.call(method, text("late"), { deadlineMs: 2_000 });
    const error = await late.done.then(
      () => undefined,
      (thrown: { code: number }) => thrown,
    );
    expect(error?.code).toBe(status.DEADLINE_EXCEEDED);
    expect(await late.runId).toMatch(/^[0-9a-f-]{36}$/);
  });
});
