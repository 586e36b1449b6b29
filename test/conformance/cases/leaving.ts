/** SIGTERM: the last case, since it ends the worker. */
import type { ConformanceCase } from "../case.js";
import { must } from "../kit.js";

export const leavingCases: readonly ConformanceCase[] = [
  {
    name: "drains on SIGTERM: no new work, the attempt in hand reported, both streams half-closed, exit code 0",
    section: "11",
    async run(kit) {
      const gate = kit.gate();
      const runId = await kit.start("Hold", { gate: gate.path });
      const { lease } = (await kit.delivered(runId)).message.start!;
      await kit.bound("4.4", lease);
      const since = kit.tape.now;
      kit.worker.signal("SIGTERM");
      await kit.until("11.1", "RelayDrain", () => kit.tape.relayDrains.some(({ order }) => order > since));
      await kit.until("11.1", "a beat with draining", () =>
        kit.tape.beats.some(({ order, message }) => order > since && message.draining),
      );
      await kit.until("11.1", "the coordinator to know that the worker drains", async () => {
        const [worker] = await kit.workers();
        return worker?.draining === true;
      });
      const late = await kit.start("Echo", { text: "after the drain" });
      const beats = () => kit.tape.beats.filter(({ order }) => order > since).length;
      await kit.until("11.1", "beats during the drain", () => beats() >= 3);
      must("11.1", kit.tape.startsOf(late).length === 0, "new work came after RelayDrain");
      gate.open();
      const output = await kit.outputOf("11.2", "Hold", runId);
      must("11.2", output["attempt"] === 1, "the attempt in hand was not let end");
      const ends = () => kit.tape.ends.filter(({ order }) => order > since);
      await kit.until("11.4", "the worker to exit", () => kit.worker.ended);
      must("11.4", kit.worker.exitCode === 0, `the exit code is ${kit.worker.exitCode ?? "none: a signal ended it"}`);
      for (const kind of ["relay", "connect"] as const) {
        const closed = ends().some((end) => end.kind === kind && end.how === "closed");
        must("11.3", closed, `the ${kind} stream was broken off, not half-closed`);
      }
      await kit.until("11.4", "the session to be over", async () => (await kit.workers()).length === 0);
      const acked = kit.tape.stored.some(({ message }) => message === lease);
      must("11.3", acked, "the worker left before its completion was stored");
      await kit.cancel(late);
    },
  },
];
