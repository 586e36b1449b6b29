/** ListContracts: one list at every coordinator, read anew only when something changed. */
import { ChainSpec } from "@taskmesh/proto";
import { unaryCall } from "@taskmesh/runtime";
import { afterAll, describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { openTestDatabase, registration, startTestCoordinator, stopDatabases } from "./registry-fixture.js";

afterAll(stopDatabases);

const proto = (http: string) => `
  syntax = "proto3";
  package acme.list.v1;
  import "google/api/annotations.proto";
  service ListActions { rpc Run(Text) returns (Text) { ${http} } }
  message Text { string text = 1; }`;

describe("the list of contracts", () => {
  it("has the newest revision of each method, its place and whether it declares routes, and says when nothing changed", async () => {
    const database = await openTestDatabase("postgres");
    const first = await startTestCoordinator(database.db);
    const second = await startTestCoordinator(database.db, { coordinatorId: "c2" });
    const list = (which: 0 | 1, knownVersion = "", namespace = "default") => {
      const { client } = [first, second][which]!;
      return unaryCall(client, client.listContracts, { namespace, knownVersion });
    };
    try {
      const worker = first.connect();
      await worker.register(registration([{ package: "acme.zoo.v1" }]));
      const one = await list(0);
      expect(one.contracts.map(({ method, place, http }) => [method, place, http])).toEqual([
        ["acme.zoo.v1.TestActions/Run", 1, false],
      ]);
      expect(await list(1, one.version)).toEqual({ version: one.version, contracts: [] });

      const bytes = Buffer.from(
        compileProtos({ "list.proto": proto('option (google.api.http) = { get: "/v1/{txt}" };') }),
      );
      const queues = [{ taskQueue: "list", methods: ["acme.list.v1.ListActions/Run"], slots: 1 }];
      const message = { ...registration([{ package: "acme.list.v1" }]), descriptorSet: bytes, queues };
      const { warnings } = await second.connect().register(message);
      expect(warnings).toEqual([
        'acme.list.v1.ListActions/Run: GET /v1/{txt} is not served over HTTP: acme.list.v1.Text has no field "txt"; did you mean "text"?',
      ]);
      const two = await list(0, one.version);
      expect(two.contracts.map(({ method, place, http, chain }) => [method, place, http, chain])).toEqual([
        ["acme.list.v1.ListActions/Run", 2, true, false],
        ["acme.zoo.v1.TestActions/Run", 1, false, false],
      ]);
      const spec = ChainSpec.fromPartial({
        contract: { name: "acme.list.v1.Lists/Go", input: { text: "string" }, output: { text: "string" } },
        steps: [
          {
            id: "run",
            call: "acme.list.v1.ListActions/Run",
            input: { text: { kind: { $case: "cel", value: "input.text" } } },
          },
        ],
        output: { text: { kind: { $case: "cel", value: "steps.run.output.text" } } },
      } as never);
      const { chains } = first;
      await unaryCall(chains, chains.putChain, { namespace: "default", spec, requireLiveWorkers: false });
      const three = await list(1, two.version);
      expect(three.contracts.filter(({ chain }) => chain).map(({ method }) => method)).toEqual([
        "acme.list.v1.Lists/Go",
      ]);
      expect(await list(0)).toEqual(three);
      await expect(list(0, "", "none")).rejects.toMatchObject({ reason: "NAMESPACE_NOT_FOUND" });
    } finally {
      await Promise.all([first.stop(), second.stop()]);
      await database.dispose();
    }
  });
});
