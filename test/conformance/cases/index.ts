/** Every case, in the order in which they run: those that break streams behind those that need them, leaving last. */
import type { ConformanceCase } from "../case.js";
import { againCases } from "./again.js";
import { frameCases } from "./frames.js";
import { leavingCases } from "./leaving.js";
import { payloadCases } from "./payloads.js";
import { sessionCases } from "./session.js";
import { stopCases } from "./stop.js";
import { streamCases } from "./streams.js";
import { workCases } from "./work.js";

export const conformanceCases: readonly ConformanceCase[] = [
  ...sessionCases,
  ...workCases,
  ...payloadCases,
  ...stopCases,
  ...againCases,
  ...streamCases,
  ...frameCases,
  ...leavingCases,
];
