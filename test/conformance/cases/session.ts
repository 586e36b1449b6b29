/** Registration and beats. */
import { TransportKind } from "@taskmesh/proto";
import type { ConformanceCase } from "../case.js";
import { must, slots } from "../kit.js";
import { methodOf, type Rpc, serviceName } from "../worker-contract.js";

const rpcs: readonly Rpc[] = ["Echo", "Hold", "Fail", "Resume", "Measure", "Once"];

export const sessionCases: readonly ConformanceCase[] = [
  {
    name: "registers its queue, its methods, its slots and the relay",
    section: "3",
    async run(kit) {
      const { message } = kit.tape.registers[0]!;
      must("3", message.namespace === kit.namespace, `namespace is ${JSON.stringify(message.namespace)}`);
      must("3", message.sessionId === "", "a first registration must not name a session");
      must("3", message.transports.includes(TransportKind.TRANSPORT_KIND_RELAY), "transports lacks RELAY");
      must("3", message.sdk !== "" && message.pid > 0, "sdk or pid is missing");
      const queue = message.queues.find(({ taskQueue }) => taskQueue === serviceName);
      must("3", queue !== undefined, `no queue ${serviceName}`);
      const missing = rpcs.map(methodOf).filter((method) => !queue.methods.includes(method));
      must("3", missing.length === 0, `the queue lacks ${missing.join(", ")}`);
      must("3", queue.slots === slots, `the queue has ${queue.slots} slots; TASKMESH_SLOTS says ${slots}`);
      const [worker, ...others] = await kit.workers();
      must("3", worker !== undefined && others.length === 0, `${others.length + 1} workers are registered`);
    },
  },
  {
    name: "opens the relay with the session that it was given, then allows every slot",
    section: "5.1",
    async run(kit) {
      const open = kit.tape.opens.at(-1)!;
      const session = kit.tape.registered.at(-1)!;
      must("3", open.order > session.order, "RelayOpen came before Registered");
      must("5.1", open.message.sessionId === session.message.sessionId, "RelayOpen names another session");
      await kit.quiet();
    },
  },
  {
    name: "beats, and echoes the nonces of the work stream",
    section: "4.3",
    async run(kit) {
      const since = kit.tape.now;
      await kit.until("4.3", "two different nonces in beats", () => {
        const nonces = kit.tape.beats.filter(({ order }) => order > since).map(({ message }) => message.nonce);
        return new Set(nonces.filter((nonce) => nonce !== "")).size >= 2;
      });
      const { message } = kit.tape.beats.at(-1)!;
      const free = message.freeSlots.find(({ taskQueue }) => taskQueue === serviceName);
      must("4.5", free !== undefined, `free_slots lacks the queue ${serviceName}`);
      must(
        "4.5",
        free.free === slots && free.slots === slots,
        `an idle worker says ${free.free} of ${free.slots} free`,
      );
      await kit.until("4.3", "the coordinator to find the work stream alive", async () => {
        const [worker] = await kit.workers();
        return worker?.assignable === true;
      });
    },
  },
  {
    name: "lists attempts that run, with their slots taken, and no ended ones",
    section: "4.4",
    async run(kit) {
      const gate = kit.gate();
      const runId = await kit.start("Hold", { gate: gate.path });
      const { start } = (await kit.delivered(runId)).message;
      await kit.bound("4.4", start!.lease);
      const beat = kit.tape.beats.find(({ message }) => message.attempts.some(({ lease }) => lease === start!.lease))!;
      const listed = beat.message.attempts.find(({ lease }) => lease === start!.lease)!;
      const { stepId, item, attempt } = start!;
      const same =
        listed.runId === runId && listed.stepId === stepId && listed.item === item && listed.attempt === attempt;
      must("4.4", same, "the listed attempt has another run, step, item or number than its start");
      const free = beat.message.freeSlots.find(({ taskQueue }) => taskQueue === serviceName)?.free;
      must("4.5", free === slots - 1, `one attempt runs, and the beat says ${free} of ${slots} slots are free`);
      gate.open();
      await kit.outputOf("6.4", "Hold", runId);
      await kit.quiet();
      const since = kit.tape.now;
      await kit.until("4.4", "a beat without the ended attempt", () =>
        kit.tape.beats.some(
          ({ order, message }) => order > since && message.attempts.every(({ lease }) => lease !== start!.lease),
        ),
      );
    },
  },
];
