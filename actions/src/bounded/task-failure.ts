/** A task's refusal: becomes a final failure of the attempt. */
export class TaskFailure extends Error {
  override readonly name = "TaskFailure";
  /** UPPER_SNAKE. */
  readonly reason: string;

  constructor(reason: string, message: string, cause?: unknown) {
    super(message, { cause });
    this.reason = reason;
  }
}

/** Largest text that a task returns in all: with what else an answer holds it must fit into a payload of 64 MiB. */
export const outputBytesMax = 60 * 1024 * 1024;

/** Counts what a task returns. Throws OUTPUT_TOO_LARGE as soon as it is above the bound. */
export function createOutputMeter(bytesMax: number = outputBytesMax): (text: string) => void {
  let used = 0;
  return (text) => {
    // Some bytes for the framing of each field.
    used += Buffer.byteLength(text) + 16;
    if (used > bytesMax) throw new TaskFailure("OUTPUT_TOO_LARGE", `the output has more than ${bytesMax} bytes`);
  };
}
