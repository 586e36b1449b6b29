/** What comes again: completions that were not confirmed, starts that were not acked. */
import type { ConformanceCase } from "../case.js";
import { type Kit, must } from "../kit.js";
import type { Faults } from "../tap.js";

/** Lets a start be lost on its way to the worker, and waits until the relay has it. */
async function loseStart(kit: Kit, start: () => Promise<string>): Promise<string> {
  const lost = new Set<string>();
  kit.tap.faults.start = ({ start: step, redelivered }) => {
    // Of an earlier case: it has a claim or a completion to come.
    if (redelivered) return true;
    lost.add(step?.runId ?? "");
    return false;
  };
  const runId = await start();
  await kit.until("5.2", "the coordinator to send the start", () => lost.has(runId));
  return runId;
}

/** Breaks the relay, and waits until the worker has opened another with room. */
async function reopen(kit: Kit): Promise<void> {
  const since = kit.tape.now;
  kit.tap.cut("relay");
  await kit.until("12", "another Relay stream after the break", () =>
    kit.tape.opens.some(({ order }) => order > since),
  );
  await kit.ready(since);
}

export const againCases: readonly ConformanceCase[] = [
  {
    name: "sends a completion again that could not be stored",
    section: "6.6",
    async run(kit) {
      let refused = 0;
      kit.tap.faults.completions = () => {
        refused += 1;
        return refused > 2 ? "pass" : { error: "the database is away" };
      };
      const runId = await kit.start("Echo", { text: "not stored at first" });
      const output = await kit.outputOf("6.6", "Echo", runId);
      must(
        "6.6",
        output["executions"] === 1,
        `the handler ran ${output["executions"]} times; only its report was refused`,
      );
      await kit.quiet();
    },
  },
  {
    name: "sends completions again on a new stream when the old one broke before they were confirmed",
    section: "12",
    async run(kit) {
      // Once the result is recorded the lease is over, and a beat's answer may say so: then nothing would have to be sent again.
      const reply: Faults["reply"] = (said) => ({ ...said, cancels: [] });
      kit.tap.faults = { reply, stored: () => false };
      const runId = await kit.start("Echo", { text: "confirmation lost" });
      const { lease } = (await kit.delivered(runId)).message.start!;
      await kit.until("6.4", "the completion", () => kit.tape.completionsOf(lease).length > 0);
      kit.tap.faults = { reply };
      await reopen(kit);
      await kit.until("12", "the completion once more, on the new stream", () =>
        kit.tape.completions.some(({ message, stream }) => message.lease === lease && stream === kit.tap.relayStream),
      );
      const output = await kit.outputOf("12", "Echo", runId);
      must("7.2", output["executions"] === 1, `the handler ran ${output["executions"]} times`);
      await kit.quiet();
    },
  },
  {
    name: "claims a start that was delivered before, and runs what the claim gives",
    section: "7.3",
    async run(kit) {
      const runId = await loseStart(kit, () => kit.start("Echo", { text: "delivered again" }));
      kit.tap.faults = {};
      await reopen(kit);
      const delivered = await kit.delivered(runId);
      const { lease, attempt } = delivered.message.start!;
      await kit.until("7.3", "ClaimAttempt for the redelivered start", () => kit.tape.claimsOf(runId).length > 0);
      const { request } = kit.tape.claimsOf(runId)[0]!.message;
      const session = kit.tape.registered.at(-1)!.message.sessionId;
      const named = request.lease === lease && request.attempt === attempt && request.sessionId === session;
      must("7.3", named, "the claim names another lease, attempt or session");
      const output = await kit.outputOf("7.3", "Echo", runId);
      must("7.3", output["executions"] === 1, `the handler ran ${output["executions"]} times`);
      must("7.3", kit.tape.completionsOf(lease).length === 0, "the superseded lease was reported");
      await kit.until("7.3", "the ack of the delivered start", () => isAcked(kit, runId));
      await kit.quiet();
    },
  },
  {
    name: "drops a start when its claim says so: acked, not run, its slot free",
    section: "7.3",
    async run(kit) {
      const runId = await loseStart(kit, () => kit.start("Echo", { text: "dropped" }));
      await kit.terminate(runId);
      kit.tap.faults = {};
      await reopen(kit);
      const { lease } = (await kit.delivered(runId)).message.start!;
      await kit.until("7.3", "ClaimAttempt for the redelivered start", () => kit.tape.claimsOf(runId).length > 0);
      await kit.until("7.3", "the ack of the dropped start", () => isAcked(kit, runId));
      await kit.quiet();
      must("7.3", kit.tape.completionsOf(lease).length === 0, "the dropped start was reported");
    },
  },
  {
    name: "knows a start again whose attempt it still runs: no claim, no second run, the new delivery acked",
    section: "7.1",
    async run(kit) {
      const gate = kit.gate();
      kit.tap.faults.ack = () => false;
      const runId = await kit.start("Hold", { gate: gate.path });
      const { lease } = (await kit.delivered(runId)).message.start!;
      await kit.bound("4.4", lease);
      await kit.until("6.7", "the ack of the bound start", () => isAcked(kit, runId));
      kit.tap.faults = {};
      await reopen(kit);
      const again = await kit.delivered(runId, 1);
      must("7", again.message.redelivered, "the second delivery is not marked");
      await kit.until("7.1", "the ack of the new delivery", () =>
        kit.tape.acks.some(({ stream, message }) => stream === again.stream && message === again.message.delivery),
      );
      gate.open();
      const output = await kit.outputOf("7.1", "Hold", runId);
      must("7.1", kit.tape.claimsOf(runId).length === 0, "an attempt that still runs was claimed");
      must("7.1", output["executions"] === 1, `the handler ran ${output["executions"]} times`);
      must(
        "7.1",
        output["attempt"] === 1,
        `the attempt that counts is number ${output["attempt"]}; it must be the first`,
      );
      await kit.quiet();
    },
  },
  {
    name: "claims an exclusive start before it runs",
    section: "7.3",
    async run(kit) {
      const runId = await kit.start("Once", { text: "exclusive" });
      const output = await kit.outputOf("7.3", "Once", runId);
      must("7.3", output["attempt"] === 1, `the attempt is number ${output["attempt"]}`);
      const [claim] = kit.tape.claimsOf(runId);
      must("7.3", claim !== undefined, "the start was run without a claim");
      const completion = kit.tape.completions.find(({ message }) => message.runId === runId)!;
      must("7.3", claim.order < completion.order, "the completion came before the claim");
      await kit.quiet();
    },
  },
  {
    name: "sends confirmed completions again when the mesh has lost some",
    section: "4",
    async run(kit) {
      const runId = await kit.start("Echo", { text: "republished" });
      await kit.outputOf("6.4", "Echo", runId);
      const { lease } = (await kit.delivered(runId)).message.start!;
      await kit.quiet();
      const before = kit.tape.completionsOf(lease).length;
      kit.tap.faults.reply = (reply) => {
        kit.tap.faults = {};
        return { ...reply, republish: true };
      };
      await kit.until(
        "4",
        "the confirmed completion once more (BeatReply.republish)",
        () => kit.tape.completionsOf(lease).length > before,
      );
      await kit.quiet();
    },
  },
];

/** Whether the newest delivery of a run's start was acked. */
function isAcked(kit: Kit, runId: string): boolean {
  const newest = kit.tape.startsOf(runId).at(-1);
  return kit.tape.acks.some(({ stream, message }) => stream === newest?.stream && message === newest.message.delivery);
}
