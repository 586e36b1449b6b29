/** Streams that break, go silent, or are asked to go elsewhere. */
import type { ConformanceCase } from "../case.js";
import { type Kit, must, slots } from "../kit.js";

/** Waits until the worker has resumed its session on another Connect stream. */
async function resumed(kit: Kit, since: number): Promise<void> {
  const before = kit.tape.registered.findLast(({ order }) => order <= since)!.message.sessionId;
  await kit.until("12", "another Register", () => kit.tape.registers.some(({ order }) => order > since));
  const { message } = kit.tape.registers.find(({ order }) => order > since)!;
  must(
    "12",
    message.sessionId === before,
    `Register names the session ${JSON.stringify(message.sessionId)}, not its own`,
  );
  await kit.until("12", "the session to be resumed", () => kit.tape.registered.some(({ order }) => order > since));
  const after = kit.tape.registered.at(-1)!.message.sessionId;
  must("12", after === before, "the session was ended by the worker: a broken stream is cancelled, never half-closed");
}

/** Waits until a worker with one attempt in hand allows its other slots, and no more. A start may have come again by then: it holds credit until it is acked. */
async function allowsOthers(kit: Kit, section: string): Promise<void> {
  const told = () => {
    const { allowed, inHand } = kit.room();
    return `${allowed} are allowed and ${inHand} in hand while an attempt holds one of ${slots}`;
  };
  const isWhole = (): boolean => {
    const { allowed, inHand } = kit.room();
    must(section, allowed + inHand < slots, `more slots are allowed than are free: ${told()}`);
    return allowed + inHand === slots - 1;
  };
  await kit.until(section, () => `credit for every other slot (${told()})`, isWhole);
}

export const streamCases: readonly ConformanceCase[] = [
  {
    name: "resumes its session when Connect breaks, and its attempts go on",
    section: "12",
    async run(kit) {
      const gate = kit.gate();
      const runId = await kit.start("Hold", { gate: gate.path });
      const { lease } = (await kit.delivered(runId)).message.start!;
      await kit.bound("4.4", lease);
      const since = kit.tape.now;
      kit.tap.cut("connect");
      await resumed(kit, since);
      await kit.until("12", "a beat of the resumed session that lists the attempt", () =>
        kit.tape.listed(lease, since),
      );
      gate.open();
      const output = await kit.outputOf("12", "Hold", runId);
      must("12", output["attempt"] === 1 && output["executions"] === 1, "the attempt did not survive the break");
      await kit.ready();
      await kit.quiet();
    },
  },
  {
    name: "opens the relay again when it breaks, with credit for its free slots alone",
    section: "12",
    async run(kit) {
      const gate = kit.gate();
      const runId = await kit.start("Hold", { gate: gate.path });
      const { lease } = (await kit.delivered(runId)).message.start!;
      await kit.bound("4.4", lease);
      const since = kit.tape.now;
      kit.tap.cut("relay");
      await kit.until("12", "another Relay stream", () => kit.tape.opens.some(({ order }) => order > since));
      await kit.ready(since);
      await allowsOthers(kit, "12");
      gate.open();
      const output = await kit.outputOf("12", "Hold", runId);
      must("12", output["attempt"] === 1 && output["executions"] === 1, "the attempt did not survive the break");
      await kit.quiet();
    },
  },
  {
    name: "gives a Connect stream up whose beats are not answered",
    section: "4",
    async run(kit) {
      const since = kit.tape.now;
      kit.tap.faults.reply = () => undefined;
      await kit.until("4", "another Register after three intervals without a reply", () =>
        kit.tape.registers.some(({ order }) => order > since),
      );
      kit.tap.faults = {};
      await resumed(kit, since);
      await kit.ready();
      await kit.call("12", "Echo", { text: "after silence" });
      await kit.quiet();
    },
  },
  {
    name: "goes to another coordinator when this one drains, with its session",
    section: "12",
    async run(kit) {
      const since = kit.tape.now;
      kit.tap.faults.reply = (reply) => {
        kit.tap.faults = {};
        return { ...reply, drain: true };
      };
      await resumed(kit, since);
      await kit.ready();
      await kit.call("12", "Echo", { text: "after a drain" });
      await kit.quiet();
    },
  },
  {
    name: "opens the relay again when it is asked to, with credit for its free slots alone",
    section: "5.3",
    async run(kit) {
      const gate = kit.gate();
      const runId = await kit.start("Hold", { gate: gate.path });
      const { lease } = (await kit.delivered(runId)).message.start!;
      await kit.bound("4.4", lease);
      const since = kit.tape.now;
      kit.tap.faults.reply = (reply) => {
        kit.tap.faults = {};
        return { ...reply, reopenTransport: true };
      };
      await kit.until("4", "another RelayOpen (BeatReply.reopen_transport)", () =>
        kit.tape.opens.some(({ order }) => order > since),
      );
      await kit.ready(since);
      await allowsOthers(kit, "5.3");
      await kit.call("12", "Echo", { text: "after reopening" });
      gate.open();
      const output = await kit.outputOf("12", "Hold", runId);
      must("12", output["attempt"] === 1 && output["executions"] === 1, "the attempt did not survive the reopening");
      await kit.quiet();
    },
  },
];
