/**
 * Values through a whole mesh: over REST or gRPC in, JetStream, a worker that decodes and encodes them, Postgres, and out over REST and
 * gRPC. First every value of protobuf's public conformance suite, with the suite's own runner as the judge of what comes out; then any
 * value of any schema.
 */
import { createHash } from "node:crypto";
import {
  create,
  createFileRegistry,
  type DescMessage,
  type FileRegistry,
  fromBinary,
  fromJson,
  type Message,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { type FileDescriptorProto, type FileDescriptorSet, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { type AnyAction, defineAction, type Worker } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import { guardLocalNames } from "@taskmesh/runtime";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileProtos } from "../fixtures/compile-protos.js";
import { runSuite, type SuiteAnswer, type SuiteCase, suiteProtos } from "../fixtures/conformance-suite.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { entriesOf } from "../fixtures/method-entries.js";
import { anySchema, fileOfSchema, schemaImports } from "../fixtures/random-schema.js";
import { anyValue, comparable } from "../fixtures/random-value.js";
import { startTestGateway } from "../fixtures/rest-gateway.js";
import { openRoundTrips, type RoundTrips, type Trip } from "../fixtures/round-trips.js";

/** Trips at once. */
const width = 100;

let mesh: InProcessMesh;
let gateway: Gateway;
let trips: RoundTrips;

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "servers" });
  gateway = await startTestGateway([mesh.address.port]);
  trips = openRoundTrips(mesh, gateway);
});
afterAll(async () => {
  trips?.close();
  await gateway?.stop();
  await mesh?.stop();
});

/** Does `work` for each of the items, `width` of them at once. */
async function forAll<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  const waiting = [...items];
  const lane = async (): Promise<void> => {
    for (let item = waiting.pop(); item !== undefined; item = waiting.pop()) await work(item);
  };
  await Promise.all(Array.from({ length: width }, lane));
}

describe("the values of the conformance suite", () => {
  const service = "acme.conformance.v1.TripActions";
  const skipped: SuiteAnswer = { case: "skipped", value: "no format of the mesh" };
  /** Every value that the suite asks for, once. */
  const cases = new Map<string, SuiteCase>();
  const outcomes = new Map<string, Trip | Error>();
  let registry: FileRegistry;

  /** Formats other than JSON and binary are none of the mesh's. */
  const isForeign = ({ input, output }: SuiteCase): boolean => input.form === "other" || output === "other";
  const nameOf = (type: string): string => type.replace(/^protobuf_test_messages\./, "").replace(/\W/g, "_");
  const methodOf = (type: string): string => `${service}/${nameOf(type)}`;

  /** What makes two cases one trip: the runner asks for most values twice, once for each form of the output. */
  const keyOf = ({ type, input }: SuiteCase): string => {
    const hash = createHash("sha256").update(type);
    if (input.form === "json") hash.update("\0json\0").update(input.text);
    if (input.form === "binary") hash.update("\0binary\0").update(input.bytes);
    return hash.digest("base64");
  };

  beforeAll(async () => {
    await runSuite((one) => {
      if (!isForeign(one)) cases.set(keyOf(one), one);
      return skipped;
    });
    const protos = suiteProtos();
    const types = [...new Set([...cases.values()].map(({ type }) => type))];
    const own = `syntax = "proto3"; package acme.conformance.v1;
      ${Object.keys(protos)
        .map((path) => `import "${path}";`)
        .join("\n")}
      service TripActions { ${types.map((type) => `rpc ${nameOf(type)}(.${type}) returns (.${type});`).join("\n")} }`;
    const descriptors = compileProtos({ ...protos, "acme/conformance.proto": own });
    registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
    const entry = entriesOf(descriptors, service);
    const actions = types.map((type) => defineAction(entry<object, object>(nameOf(type)), async (input) => input));
    await mesh.serve(actions, { descriptors, slots: width });
    await trips.served(types.map(methodOf));
  });

  const travel = (one: SuiteCase): Promise<Trip> => {
    if (one.input.form === "json") return trips.overRest(methodOf(one.type), one.input.text);
    if (one.input.form === "binary") return trips.overGrpc(methodOf(one.type), one.input.bytes);
    throw new Error("a case without a value");
  };

  /** Whether a parser takes the encoded message. */
  const isReadable = ({ type, input }: SuiteCase): boolean => {
    if (input.form !== "binary") return false;
    try {
      fromBinary(registry.getMessage(type)!, input.bytes);
      return true;
    } catch {
      return false;
    }
  };

  /** What the suite is told. A readable value that the mesh refuses for what JSON can't say counts as one that JSON can't say. */
  const answerOf = (one: SuiteCase): SuiteAnswer => {
    if (isForeign(one)) return skipped;
    if (one.ignoresUnknown) return { case: "skipped", value: "the mesh refuses unknown fields" };
    const outcome = outcomes.get(keyOf(one)) ?? new Error("no trip was made");
    if (outcome instanceof Error) return { case: "runtimeError", value: outcome.message };
    if (outcome.kind === "refused") {
      const value = `${outcome.field}: ${outcome.message}`;
      return { case: one.output === "json" && isReadable(one) ? "serializeError" : "parseError", value };
    }
    if (one.output === "json") return { case: "jsonPayload", value: outcome.json };
    return { case: "protobufPayload", value: outcome.bytes };
  };

  /** Where the mesh means to differ: its answers show fields at their default, so that a reader sees the whole shape. */
  const expected = ["Proto3", "Editions_Proto3"].flatMap((syntax) => [
    `Required.${syntax}.JsonInput.SkipsDefaultPrimitive.Validator`,
    `Recommended.${syntax}.JsonInput.NullValueInNormalMessage.Validator`,
  ]);

  it("come out as they went in, or are refused as they must be", async () => {
    expect(cases.size).toBeGreaterThan(1_500);
    await forAll([...cases], async ([key, one]) => {
      outcomes.set(key, await travel(one).catch((error: Error) => error));
    });
    const { code, output } = await runSuite(answerOf, expected);
    expect(code, output).toBe(0);
  }, 300_000);

  it("keep over gRPC what JSON has no form for, and REST says so", async () => {
    const type = [...cases.values()].find((one) => one.type.endsWith(".proto3.TestAllTypesProto3"))!.type;
    const desc = registry.getMessage(type)!;
    const value = {
      optionalAny: { typeUrl: "type.googleapis.com/acme.nowhere.v1.Unknown", value: Uint8Array.of(8, 1) },
    };
    const bytes = toBinary(desc, create(desc, value as never));
    const refused = await trips.overGrpc(methodOf(type), bytes).catch((error: Error) => error.message);
    expect(refused).toContain('"reason":"PAYLOAD_NOT_JSON"');
    expect(refused).toContain("acme.nowhere.v1.Unknown");
  });
});

describe("any value of any schema", () => {
  /** Schemas that one worker registers at once, and values of each. */
  const schemas = 6;
  const values = 8;
  let packages = 0;

  /** A contract under a name that nobody has yet, with the types that it knows. */
  interface Known {
    name: string;
    registry: FileRegistry;
  }

  const setOf = (files: readonly FileDescriptorProto[]): FileDescriptorSet =>
    create(FileDescriptorSetSchema, { file: [...schemaImports, ...files] });
  const knownOf = (file: FileDescriptorProto): Known => {
    const registry = createFileRegistry(setOf([file]));
    guardLocalNames(registry.files);
    return { name: file.package, registry };
  };
  const inputOf = ({ name, registry }: Known): DescMessage => registry.getMessage(`${name}.Message0`)!;
  const methodOf = ({ name }: Known): string => `${name}.TripActions/Pass`;

  const sample = fc
    .array(anySchema, { minLength: schemas, maxLength: schemas })
    .map((list) => list.map((schema) => fileOfSchema(schema, `acme.any${packages++}.v1`)))
    .chain((files) => {
      const lists = files.map(knownOf).map((known) => {
        const value = anyValue(inputOf(known), known.registry);
        const list = fc.array(value, { minLength: values, maxLength: values });
        return list.map((messages) => messages.map((message) => ({ known, message })));
      });
      return fc.tuple(fc.constant(files), fc.tuple(...lists));
    });

  it("comes out over REST and gRPC as it went in over either", async () => {
    await fc.assert(
      fc.asyncProperty(sample, async ([files, lists]) => {
        const worker = await serve(files);
        await forAll(lists.flat(), makeTrips);
        await worker.stop();
      }),
      { numRuns: 6, endOnFailure: true },
    );
  }, 240_000);

  async function serve(files: readonly FileDescriptorProto[]): Promise<Worker> {
    const descriptors = toBinary(FileDescriptorSetSchema, setOf(files));
    const actions = files.map((file): AnyAction => {
      const entry = entriesOf(descriptors, `${file.package}.TripActions`);
      return defineAction(entry<object, object>("Pass"), async (input) => input);
    });
    const worker = await mesh.serve(actions, { descriptors, slots: width });
    await trips.served(files.map((file) => `${file.package}.TripActions/Pass`));
    return worker;
  }

  async function makeTrips({ known, message }: { known: Known; message: Message }): Promise<void> {
    const { registry } = known;
    const desc = inputOf(known);
    const text = JSON.stringify(toJson(desc, message, { registry }));
    const form = (value: Message, signedZero = false) => comparable(desc, value, registry, signedZero);
    const arrive = (trip: Trip) => {
      if (trip.kind === "refused") throw new Error(`${trip.field}: ${trip.message}, in ${text}`);
      expect(form(fromJson(desc, JSON.parse(trip.json), { registry }))).toEqual(form(message));
      return fromBinary(desc, trip.bytes);
    };
    // JSON calls minus zero and zero the same, so that only a way without JSON keeps the sign.
    const overGrpc = arrive(await trips.overGrpc(methodOf(known), toBinary(desc, message)));
    expect(form(overGrpc, true)).toEqual(form(message, true));
    expect(form(arrive(await trips.overRest(methodOf(known), text)))).toEqual(form(message));
  }
});
