/** Messages that a worker does not know, or that make no sense: none of them may end a stream or the worker. */
import { CancelReason, ConnectResponse, RelayResponse, StartStep } from "@taskmesh/proto";
import type { ConformanceCase } from "../case.js";
import { type Kit, must } from "../kit.js";
import { methodOf, serviceName } from "../worker-contract.js";

/** Field 1999 as a string, and field 1998 as a varint: of a version to come. */
const unknownFields = Buffer.from([0xfa, 0x7c, 0x03, 0x6e, 0x65, 0x77, 0xf0, 0x7c, 0x2a]);

/** Ends the case unless the same streams are still open and work goes on. */
async function stillWorks(kit: Kit, before: { relay: number; connect: number }, text: string): Promise<void> {
  const since = kit.tape.now;
  await kit.until("4.1", "two more beats", () => kit.tape.beats.filter(({ order }) => order > since).length >= 2);
  const output = await kit.call("14", "Echo", { text });
  must("14", output["executions"] === 1, "the handler ran twice");
  must("14", kit.tap.connectStream === before.connect, "the Connect stream was given up");
  must("14", kit.tap.relayStream === before.relay, "the Relay stream was given up");
  await kit.quiet();
}

const streams = (kit: Kit): { relay: number; connect: number } => ({
  relay: kit.tap.relayStream,
  connect: kit.tap.connectStream,
});

export const frameCases: readonly ConformanceCase[] = [
  {
    name: "ignores kinds of messages and fields that it does not know",
    section: "14",
    async run(kit) {
      const before = streams(kit);
      for (const bytes of [Buffer.alloc(0), unknownFields]) {
        kit.tap.inject(bytes);
        kit.tap.injectReply(bytes);
      }
      const reply = {
        number: 0n,
        boundLeases: [],
        cancels: [],
        drain: false,
        reopenTransport: false,
        republish: false,
      };
      const known = ConnectResponse.encode({
        message: { $case: "beatReply", value: { ...reply, jetstream: undefined } },
      });
      kit.tap.injectReply(Buffer.concat([known.finish(), unknownFields]));
      const probe = RelayResponse.encode({ message: { $case: "starts", value: { starts: [] } } }).finish();
      kit.tap.inject(Buffer.concat([probe, unknownFields]));
      await stillWorks(kit, before, "unknown kinds");
    },
  },
  {
    name: "ignores confirmations and leases that are not its own",
    section: "14",
    async run(kit) {
      const before = streams(kit);
      for (const error of ["", "not stored"])
        kit.tap.inject({ message: { $case: "stored", value: { number: 1n << 60n, error } } });
      const cancels = [CancelReason.CANCEL_REASON_LEASE_LOST, CancelReason.CANCEL_REASON_CANCELLED].map((reason) => ({
        lease: `nobody-${reason}`,
        reason,
      }));
      kit.tap.faults.reply = (reply) => {
        kit.tap.faults = {};
        return { ...reply, boundLeases: [...reply.boundLeases, "nobody"], cancels: [...reply.cancels, ...cancels] };
      };
      await stillWorks(kit, before, "strange leases");
    },
  },
  {
    name: "ignores starts without a run, without a lease, or of a queue that is not its own",
    section: "14",
    async run(kit) {
      const before = streams(kit);
      await kit.quiet();
      const start = { ...StartStep.create(), method: methodOf("Echo"), reportTo: "nobody", attempt: 1, stepId: "main" };
      const runId = "00000000-0000-7000-8000-000000000002";
      const odd = [
        kit.tap.injectStart(serviceName, { ...start, lease: "without-a-run" }),
        kit.tap.injectStart(serviceName, { ...start, runId }),
      ];
      kit.tap.inject({
        message: {
          $case: "starts",
          value: {
            starts: [
              {
                taskQueue: "nobody's",
                delivery: 1n << 50n,
                start: { ...start, runId, lease: "l" },
                redelivered: false,
                headers: {},
              },
            ],
          },
        },
      });
      await stillWorks(kit, before, "strange starts");
      const leases = new Set(["without-a-run", "", "l"]);
      must(
        "14",
        !kit.tape.completions.some(({ message }) => leases.has(message.lease)),
        "a strange start was reported",
      );
      const acked = kit.tape.acks.some(({ message }) => odd.includes(message) || message === 1n << 50n);
      must("14", !acked, "a strange start was acked");
    },
  },
];
