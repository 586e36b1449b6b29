/** Attempts that are to stop, leases that are lost, and what the next attempt goes on from. */
import { RunStatus } from "@taskmesh/proto";
import type { ConformanceCase } from "../case.js";
import { must } from "../kit.js";

export const stopCases: readonly ConformanceCase[] = [
  {
    name: "stops a handler whose run was cancelled, and reports `cancelled`",
    section: "8",
    async run(kit) {
      const runId = await kit.start("Hold", { gate: kit.gate().path });
      const { lease } = (await kit.delivered(runId)).message.start!;
      await kit.bound("4.4", lease);
      await kit.cancel(runId);
      await kit.until("8", "the completion of the cancelled attempt", () => kit.tape.completionsOf(lease).length > 0);
      const [completion] = kit.tape.completionsOf(lease);
      const outcome = completion!.outcome?.$case;
      must("8", outcome === "cancelled", `the outcome is ${outcome}; it must be cancelled`);
      const { status } = await kit.result("8", runId);
      must("8", status === RunStatus.RUN_STATUS_CANCELLED, `the run ended ${RunStatus[status]}`);
      await kit.quiet();
    },
  },
  {
    name: "drops an attempt whose lease was lost: stopped, not reported, listed no more",
    section: "8",
    async run(kit) {
      const gate = kit.gate();
      const runId = await kit.start("Hold", { gate: gate.path });
      const { lease } = (await kit.delivered(runId)).message.start!;
      await kit.bound("4.4", lease);
      await kit.terminate(runId);
      const isTold = () => kit.tape.replies.some(({ message }) => message.cancels.some((one) => one.lease === lease));
      await kit.until("4.4", "the coordinator to answer a beat that lists the lost lease", isTold);
      const told = kit.tape.now;
      await kit.quiet();
      gate.open();
      // Two beats later whatever the worker wanted to say of it has been said.
      await kit.until("4.1", "two more beats", () => kit.tape.beats.filter(({ order }) => order > told).length >= 2);
      must("8", kit.tape.completionsOf(lease).length === 0, "the lost attempt was reported");
      const newest = kit.tape.beats.at(-1)!.message.attempts;
      must(
        "8",
        newest.every((attempt) => attempt.lease !== lease),
        "the lost attempt is still listed",
      );
      await kit.call("6.4", "Echo", { text: "after a lost lease" });
      await kit.quiet();
    },
  },
  {
    name: "tells progress and the checkpoint in beats",
    section: "9",
    async run(kit) {
      const gate = kit.gate();
      const runId = await kit.start("Resume", { gate: gate.path, position: 21n });
      const { lease } = (await kit.delivered(runId)).message.start!;
      const reports = () =>
        kit.tape.beats.flatMap(({ message }) => message.attempts.filter((attempt) => attempt.lease === lease));
      await kit.until("9.1", "progress of 50 in a beat", () =>
        reports().some(({ progress }) => progress?.percent === 50),
      );
      await kit.until("9.2", "the checkpoint in a beat", () =>
        reports().some(({ checkpoint }) => checkpoint !== undefined),
      );
      const { checkpoint } = reports().find((attempt) => attempt.checkpoint !== undefined)!;
      const name = checkpoint!.typeUrl.slice(checkpoint!.typeUrl.lastIndexOf("/") + 1);
      must("9.2", name === "conformance.v1.Position", `the checkpoint's type is ${checkpoint!.typeUrl}`);
      await kit.until("9.1", "the run to show the progress", async () => (await kit.run(runId)).progress === 50);
      gate.open();
      const output = await kit.outputOf("9.3", "Resume", runId);
      must(
        "9.3",
        output["position"] === 21n,
        `the second attempt began at ${output["position"]}, not at the checkpoint`,
      );
      must("9.3", output["attempt"] === 2, `the attempt that goes on is number ${output["attempt"]}`);
      await kit.quiet();
    },
  },
  {
    name: "keeps in the report of a failure what it saved since the last beat",
    section: "9.2",
    async run(kit) {
      const gate = kit.gate();
      gate.open();
      const runId = await kit.start("Resume", { gate: gate.path, position: 34n });
      const output = await kit.outputOf("9.2", "Resume", runId);
      must(
        "9.2",
        output["position"] === 34n,
        `the second attempt began at ${output["position"]}, not at the checkpoint`,
      );
      await kit.quiet();
    },
  },
  {
    name: "takes the new session when its own has lapsed, and leaves the old attempts to it",
    section: "12",
    async run(kit) {
      const runId = await kit.start("Resume", { gate: kit.gate().path, position: 55n });
      const { lease } = (await kit.delivered(runId)).message.start!;
      const before = kit.tape.registered.at(-1)!.message.sessionId;
      await kit.until("9.2", "the checkpoint in a beat", () =>
        kit.tape.beats.some(({ message }) =>
          message.attempts.some((attempt) => attempt.lease === lease && attempt.checkpoint !== undefined),
        ),
      );
      await kit.bound("4.4", lease);
      kit.tap.faults.register = () => false;
      kit.tap.cut("connect");
      // Not listed is not lapsed: until its attempts are given up a session can still be resumed.
      await kit.until("12", "the session to lapse", async () => (await kit.run(runId)).lostAttempts > 0);
      const since = kit.tape.now;
      kit.tap.faults = {};
      await kit.until("12", "another registration", () => kit.tape.registered.some(({ order }) => order > since));
      const session = kit.tape.registered.at(-1)!.message.sessionId;
      must("12", session !== before, "the session was resumed though it had lapsed");
      await kit.until("12", "a Relay stream of the new session", () =>
        kit.tape.opens.some(({ order, message }) => order > since && message.sessionId === session),
      );
      const output = await kit.outputOf("12", "Resume", runId);
      must("9.3", output["position"] === 55n, `the next attempt began at ${output["position"]}, not at the checkpoint`);
      must("8", kit.tape.completionsOf(lease).length === 0, "the lost attempt was reported");
      // The attempt that goes on may have come over the old stream, which lives a moment longer than its session; later ones do not.
      await kit.quiet();
      const next = await kit.start("Echo", { text: "in the new session" });
      await kit.outputOf("12", "Echo", next);
      const named = kit.tape.completions.findLast(({ message }) => message.runId === next)?.message.sessionId;
      must("12", named === session, `the completion names the session ${named}; the newest is ${session}`);
      await kit.quiet();
    },
  },
];
