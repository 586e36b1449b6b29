/**
 * Functions that the engine gets from here, because its own give something else than they promise, or take more than linear time.
 *
 *   time - time   its own gives a timestamp where a duration is declared
 *   replace       its own copies the text once for each occurrence
 */

import { type CelFunc, CelScalar, celFunc, celMethod, objectType } from "@bufbuild/cel";
import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { appendLists } from "./appended-list.js";

const { INT, STRING } = CelScalar;
const timestamp = objectType(TimestampSchema);
const duration = objectType(DurationSchema);

/** For celEnv's `funcs`. */
export const engineFunctions: CelFunc[] = [
  appendLists,
  celFunc("_-_", [timestamp, timestamp], duration, (left, right) =>
    timeBetween(left.message as unknown as Instant, right.message as unknown as Instant),
  ),
  celMethod("replace", STRING, [STRING, STRING], STRING, function (this: string, from, to) {
    return String(this).replaceAll(from, () => to);
  }),
  celMethod("replace", STRING, [STRING, STRING, INT], STRING, function (this: string, from, to, limit) {
    return replaceFirst(String(this), from, to, limit);
  }),
];

interface Instant {
  seconds: bigint;
  nanos: number;
}

const nanosPerSecond = 1_000_000_000n;
/** CEL's durations are 64-bit counts of nanoseconds. */
const nanosMax = 2n ** 63n - 1n;

function timeBetween(left: Instant, right: Instant): Duration {
  const nanos = (left.seconds - right.seconds) * nanosPerSecond + BigInt(left.nanos - right.nanos);
  if (nanos > nanosMax || nanos < -nanosMax - 1n) throw new Error("duration overflow: the instants are too far apart");
  return create(DurationSchema, { seconds: nanos / nanosPerSecond, nanos: Number(nanos % nanosPerSecond) });
}

/** A negative limit is none. */
function replaceFirst(text: string, from: string, to: string, limit: bigint): string {
  if (limit < 0n) return text.replaceAll(from, () => to);
  let left = limit;
  return text.replaceAll(from, (found) => {
    left -= 1n;
    return left >= 0n ? to : found;
  });
}
