/**
 * contracts: a worker that registers 1,000 contracts (for the first time, again, as their next revision, as one that breaks), and a chain of
 * 1,000 steps that is saved. One coordinator in this process, real Postgres.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { createCoordinator, openPostgres } from "@taskmesh/coordinator";
import {
  ChainServiceClient,
  ChainSpec,
  ContractServiceClient,
  ContractVerdict,
  Register,
  RegistryServiceClient,
} from "@taskmesh/proto";
import {
  type Address,
  coordinatorConfig,
  createClient,
  fromServiceError,
  MemoryBus,
  unaryCall,
} from "@taskmesh/runtime";
import { startPostgres } from "../fixtures/postgres.js";

export interface ContractsOptions {
  rounds: number;
}

const contracts = 1_000;
const steps = 1_000;
const methodOf = (index: number): string => `bench.v1.ManyActions/Do${index}`;

/** A set of 1,000 rpcs, each with messages of its own; `fields` are those of the inputs. */
function manyContracts(fields: readonly [string, FieldDescriptorProto_Type][]): Buffer {
  const message = (name: string, list: readonly [string, FieldDescriptorProto_Type][]) => ({
    name,
    field: list.map(([field, type], at) => ({
      ...{ name: field, jsonName: field, number: at + 1, type, label: FieldDescriptorProto_Label.OPTIONAL },
    })),
  });
  const all = Array.from({ length: contracts }, (_, index) => index);
  const file = create(FileDescriptorProtoSchema, {
    ...{ name: "bench/v1/many.proto", package: "bench.v1", syntax: "proto3" },
    messageType: all.flatMap((index) => [
      message(`Do${index}Request`, fields),
      message(`Do${index}Response`, [["text", FieldDescriptorProto_Type.STRING]]),
    ]),
    service: [
      {
        name: "ManyActions",
        method: all.map((index) => ({
          ...{
            name: `Do${index}`,
            inputType: `.bench.v1.Do${index}Request`,
            outputType: `.bench.v1.Do${index}Response`,
          },
        })),
      },
    ],
  });
  return Buffer.from(toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: [file] })));
}

/** Time until the answer to Register, in milliseconds; the stream stays open. */
async function register(
  address: Address,
  descriptorSet: Buffer,
): Promise<{ ms: number; close(): void; refused: string }> {
  const client = createClient(RegistryServiceClient, { addresses: [address] });
  const stream = client.connect();
  const methods = Array.from({ length: contracts }, (_, index) => methodOf(index));
  const value = Register.fromPartial({ descriptorSet, queues: [{ taskQueue: "bench", methods, slots: 10 }] });
  const startedMs = performance.now();
  const refused = await new Promise<string>((resolve) => {
    stream.once("data", () => resolve(""));
    stream.on("error", (error) => resolve(fromServiceError(error).reason));
    stream.write({ message: { $case: "register", value } });
  });
  const ms = performance.now() - startedMs;
  const close = (): void => {
    stream.cancel();
    client.close();
  };
  return { ms, close, refused };
}

/** A chain in which each step reads the one before. */
function longChain(description: string): ChainSpec {
  const cel = (text: string) => ({ kind: { $case: "cel" as const, value: text } });
  return ChainSpec.fromPartial({
    description,
    contract: { name: "bench.v1.Chains/Long", input: { text: "string" }, output: { text: "string" } },
    steps: Array.from({ length: steps }, (_, index) => ({
      ...{ id: `s${index}`, call: methodOf(index) },
      input: { text: cel(index === 0 ? "input.text" : `steps.s${index - 1}.output.text + '!'`) },
    })),
    output: { text: cel(`steps.s${steps - 1}.output.text`) },
  });
}

const { STRING, INT64 } = FieldDescriptorProto_Type;
const first = manyContracts([["text", STRING]]);
const grown = manyContracts([
  ["text", STRING],
  ["lang", STRING],
]);
const broken = manyContracts([
  ["text", INT64],
  ["lang", STRING],
]);

/** One round on a database of its own: milliseconds by what was done, and of them those in which this process (and its clients) computed. */
async function round(): Promise<{ ms: Record<string, number>; cpuMs: Record<string, number> }> {
  const postgres = await startPostgres();
  const bus = new MemoryBus();
  const env = {
    TASKMESH_GRPC_ADDRESS: "127.0.0.1:0",
    TASKMESH_METRICS_ADDRESS: "off",
    TASKMESH_LOG_LEVEL: "error",
  };
  const coordinator = createCoordinator(coordinatorConfig(env, { embedded: true }), {
    database: openPostgres({ url: await postgres.createDatabase(), connectionsMax: 8 }),
    carrier: (id) => bus.carrier(id),
  });
  await coordinator.start();
  const { address } = coordinator.listener;
  const chains = createClient(ChainServiceClient, { addresses: [address] });
  const service = createClient(ContractServiceClient, { addresses: [address] });
  const ms: Record<string, number> = {};
  const cpuMs: Record<string, number> = {};
  const cpuSince = (before: NodeJS.CpuUsage): number => {
    const { user, system } = process.cpuUsage(before);
    return Math.round((user + system) / 1000);
  };
  const timed = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const [startedMs, cpu] = [performance.now(), process.cpuUsage()];
    const answer = await work();
    ms[name] = Math.round(performance.now() - startedMs);
    cpuMs[name] = cpuSince(cpu);
    return answer;
  };
  const streams: { close(): void }[] = [];
  const registered = async (name: string, set: Buffer): Promise<string> => {
    const cpu = process.cpuUsage();
    const answer = await register(address, set);
    ms[name] = Math.round(answer.ms);
    cpuMs[name] = cpuSince(cpu);
    streams.push(answer);
    return answer.refused;
  };
  const must = (right: boolean, what: string): void => {
    if (!right) throw new Error(`the bench went wrong: ${what}`);
  };
  try {
    must((await registered("first", first)) === "", "the first registration");
    must((await registered("again", first)) === "", "the same registration again");
    const put = (text: string) =>
      unaryCall(chains, chains.putChain, { namespace: "", spec: longChain(text), requireLiveWorkers: false });
    must((await timed("chain", () => put("one"))).created, "the chain is new");
    must(!(await timed("chain_again", () => put("one"))).created, "the chain is not new");
    must((await registered("next_revision", grown)) === "", "the next revision");
    const check = await timed("check_broken", () =>
      unaryCall(service, service.checkContracts, { namespace: "", descriptorSet: broken, methods: [] }),
    );
    const refused = check.judgements.filter((one) => one.verdict === ContractVerdict.CONTRACT_VERDICT_REFUSED);
    must(refused.length === contracts, "every contract is refused");
    must((await registered("refused", broken)) === "CONTRACT_BREAKING", "the registration is refused");
    await timed("uses", () => unaryCall(service, service.findFieldUses, { namespace: "", field: "Do7Request.text" }));
    return { ms, cpuMs };
  } finally {
    for (const stream of streams) stream.close();
    for (const client of [chains, service]) client.close();
    await coordinator.stop();
    await postgres.dispose();
  }
}

/** Prints each round and the medians. */
export async function benchContracts({ rounds }: ContractsOptions): Promise<void> {
  const all: Awaited<ReturnType<typeof round>>[] = [];
  for (let at = 0; at < rounds; at++) {
    const { ms, cpuMs } = await round();
    all.push({ ms, cpuMs });
    console.log(JSON.stringify({ name: "contracts", contracts, steps, ms, cpu_ms: cpuMs }));
  }
  const median = (kind: "ms" | "cpuMs"): Record<string, number> => {
    const names = Object.keys(all[0]?.[kind] ?? {});
    const middle = (name: string): number => {
      const sorted = all.map((one) => one[kind][name] ?? 0).sort((a, b) => a - b);
      return sorted[Math.floor(sorted.length / 2)] ?? 0;
    };
    return Object.fromEntries(names.map((name) => [name, middle(name)]));
  };
  console.log(
    JSON.stringify({ name: "contracts summary", rounds, median_ms: median("ms"), median_cpu_ms: median("cpuMs") }),
  );
}
