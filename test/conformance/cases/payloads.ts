/** Large messages. */
import { createHash, randomBytes } from "node:crypto";
import type { ConformanceCase } from "../case.js";
import { must } from "../kit.js";

const mib = 1 << 20;
/** What still travels in the message; an output's own fields take a few bytes of it. */
const inlineBytesMax = 128 * 1024;

export const payloadCases: readonly ConformanceCase[] = [
  {
    name: "fetches an input of 3 MiB and stores an output of 2 MiB, by reference",
    section: "10",
    async run(kit) {
      const data = randomBytes(3 * mib);
      const size = 2 * mib;
      const stored = kit.tape.puts.length;
      const runId = await kit.start("Measure", { data, size });
      const output = await kit.outputOf("10", "Measure", runId);
      const sha256 = createHash("sha256").update(data).digest();
      must("10.2", output["length"] === BigInt(data.length), `the input arrived with ${output["length"]} bytes`);
      must("10.2", sha256.equals(Buffer.from(output["sha256"] as Uint8Array)), "the input arrived changed");
      const given = Buffer.from(output["data"] as Uint8Array);
      must("10.3", given.length === size && given.every((byte) => byte === 0x5a), "the output came back changed");
      const completion = kit.tape.completions.findLast(({ message }) => message.runId === runId)!.message;
      const payload = completion.outcome?.$case === "output" ? completion.outcome.value : undefined;
      must("10.1", payload?.data?.$case === "reference", "an output of 2 MiB must travel by reference");
      must(
        "10.3",
        payload.sha256.length === 32 && payload.sizeBytes > BigInt(size),
        "the envelope of PutPayload was not passed on",
      );
      const put = kit.tape.puts[stored];
      must("10.3", put !== undefined, "PutPayload was not called");
      must(
        "10.3",
        put.chunks.every((bytes) => bytes <= mib),
        `a chunk has ${Math.max(...put.chunks)} bytes; at most 1 MiB`,
      );
      await kit.quiet();
    },
  },
  {
    name: "keeps outputs of up to 128 KiB inline, and none above",
    section: "10.1",
    async run(kit) {
      for (const [size, wanted] of [
        [inlineBytesMax - 100, "inline"],
        [inlineBytesMax + 1, "reference"],
      ] as const) {
        const runId = await kit.start("Measure", { data: Buffer.alloc(0), size });
        await kit.outputOf("10.1", "Measure", runId);
        const { outcome } = kit.tape.completions.findLast(({ message }) => message.runId === runId)!.message;
        const travelled = outcome?.$case === "output" ? outcome.value.data?.$case : outcome?.$case;
        must("10.1", travelled === wanted, `an output of ${size} bytes travelled ${travelled}; it must be ${wanted}`);
      }
      await kit.quiet();
    },
  },
];
