/** Attempts and credits. */
import { RunStatus, StartStep } from "@taskmesh/proto";
import type { ConformanceCase } from "../case.js";
import { type Kit, must, slots } from "../kit.js";
import { methodOf, serviceName } from "../worker-contract.js";

/** Runs that are more than the slots can hold at once. */
const crowd = 3 * slots;

/** A start that the coordinator never sent. */
const invented = (name: string, more: Partial<StartStep>): StartStep =>
  StartStep.fromPartial({
    namespaceId: 1,
    runId: "00000000-0000-7000-8000-000000000001",
    stepId: "main",
    attempt: 1,
    lease: `invented-${name}`,
    method: methodOf("Echo"),
    reportTo: "nobody",
    ...more,
  });

async function failureOf(kit: Kit, section: string, start: StartStep): Promise<{ reason: string; retryable: boolean }> {
  await kit.quiet();
  kit.tap.injectStart(serviceName, start);
  await kit.until(section, `a completion of the start with lease ${start.lease}`, () =>
    kit.tape.completionsOf(start.lease).some(({ outcome }) => outcome !== undefined),
  );
  const { outcome } = kit.tape.completionsOf(start.lease)[0]!;
  must(section, outcome?.$case === "failure", `the outcome is ${outcome?.$case}; it must be a failure`);
  await kit.quiet();
  return outcome.value;
}

export const workCases: readonly ConformanceCase[] = [
  {
    name: "runs an attempt and reports its output, checksummed",
    section: "6.4",
    async run(kit) {
      const data = Buffer.from(Array.from({ length: 1_000 }, (_, at) => at % 256));
      const runId = await kit.start("Echo", { text: "grüße 世界", data });
      const output = await kit.outputOf("6.4", "Echo", runId);
      must("6.4", output["text"] === "grüße 世界", `text came back as ${JSON.stringify(output["text"])}`);
      must("6.4", data.equals(Buffer.from(output["data"] as Uint8Array)), "data came back changed");
      const { start } = kit.tape.startsOf(runId)[0]!.message;
      const [completion] = kit.tape.completionsOf(start!.lease);
      const payload = completion?.outcome?.$case === "output" ? completion.outcome.value : undefined;
      must("6.4", payload?.data?.$case === "inline", "an output of 1 KiB must be inline");
      must("6.4", payload.sha256.length === 32, "the output has no sha256");
      must("6.4", payload.sizeBytes === BigInt(payload.data.value.length), "size_bytes is not the output's length");
      await kit.quiet();
    },
  },
  {
    name: "answers an empty message",
    section: "6.2",
    async run(kit) {
      const output = await kit.call("6.2", "Echo", {});
      must("6.2", output["text"] === "", "the empty message came back with a text");
      await kit.quiet();
    },
  },
  {
    name: "reports failures with reason, message and whether a retry makes sense",
    section: "6.4",
    async run(kit) {
      const said = { reason: "QUOTA_USED_UP", message: "nothing is left", retryable: false };
      const { status, failure } = await kit.result("6.4", await kit.start("Fail", said));
      must("6.4", status === RunStatus.RUN_STATUS_FAILED, `the run ended ${RunStatus[status]}`);
      const same = failure?.reason === said.reason && failure.message === said.message && !failure.retryable;
      must("6.4", same, `the failure came as ${failure?.reason}: ${failure?.message}, retryable ${failure?.retryable}`);
      const again = { reason: "BUSY", message: "later", retryable: true, untilAttempt: 3 };
      const output = await kit.call("6.4", "Fail", again);
      must("6.4", output["attempt"] === 3, `the third attempt succeeds, and it says it is number ${output["attempt"]}`);
      await kit.quiet();
    },
  },
  {
    name: "fails a method that it does not have with METHOD_UNKNOWN",
    section: "6.2",
    async run(kit) {
      const start = invented("method", { method: methodOf("Missing") });
      const { reason, retryable } = await failureOf(kit, "6.2", start);
      must("6.2", reason === "METHOD_UNKNOWN" && retryable, `the failure is ${reason}, retryable ${retryable}`);
    },
  },
  {
    name: "fails input that can't be decoded with INPUT_INVALID",
    section: "6.2",
    async run(kit) {
      const data = { $case: "inline" as const, value: Buffer.from([0x0a, 0xff, 0xff, 0xff, 0x0f, 1]) };
      const { reason } = await failureOf(kit, "6.2", invented("garbage", { input: { sizeBytes: 6n, data } as never }));
      must("6.2", reason === "INPUT_INVALID", `the failure is ${reason}`);
    },
  },
  {
    name: "fails input that does not match its checksum with PAYLOAD_UNREADABLE",
    section: "6.2",
    async run(kit) {
      const data = { $case: "inline" as const, value: Buffer.from([0x0a, 1, 0x61]) };
      const input = { sizeBytes: 3n, sha256: Buffer.alloc(32, 7), data };
      const { reason } = await failureOf(kit, "6.2", invented("checksum", { input: input as never }));
      must("6.2", reason === "PAYLOAD_UNREADABLE", `the failure is ${reason}`);
    },
  },
  {
    name: "runs as many attempts at once as it has slots, and no more",
    section: "5.3",
    async run(kit) {
      const gate = kit.gate();
      const runs = await Promise.all(Array.from({ length: crowd }, () => kit.start("Hold", { gate: gate.path })));
      await kit.until("5.3", `${slots} attempts in hand at once`, () => kit.room().inHand === slots);
      const listed = (): number => kit.tape.beats.at(-1)?.message.attempts.length ?? 0;
      await kit.until("4.4", `a beat that lists ${slots} attempts`, () => listed() === slots);
      gate.open();
      for (const runId of runs) await kit.outputOf("5.3", "Hold", runId);
      await kit.quiet();
    },
  },
  {
    name: "acks starts when their completions are stored",
    section: "6.7",
    async run(kit) {
      const runId = await kit.start("Echo", { text: "acked" });
      await kit.outputOf("6.4", "Echo", runId);
      const { delivery } = kit.tape.startsOf(runId)[0]!.message;
      await kit.until("6.7", "the ack of the start", () => kit.tape.acks.some(({ message }) => message === delivery));
      await kit.quiet();
    },
  },
];
