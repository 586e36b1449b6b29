/** The action `taskmesh.time.v1.TimeActions/Delay`: waits, and says that it is alive while it does. */
import { type ActionContext, type AnyAction, defineAction } from "@taskmesh/action-sdk";
import { type DelayRequest, type DelayResponse, TimeActionsService } from "../gen/taskmesh/time/v1/time.js";

/** A third of the shortest heartbeat timeout that makes sense (the contract's default is 60 s), and a useful step of progress. */
const reportEveryMs = 5_000;
/** As the contract says. */
const delayMaxMs = 3_600_000;

/** Makes the action. */
export function timeActions(): AnyAction[] {
  return [defineAction(TimeActionsService.delay, delay)];
}

async function delay({ duration }: DelayRequest, ctx: ActionContext): Promise<DelayResponse> {
  const wantedMs = Number(duration?.seconds ?? 0n) * 1_000 + (duration?.nanos ?? 0) / 1_000_000;
  const totalMs = Math.min(Math.max(0, wantedMs), delayMaxMs);
  const startedAtMs = performance.now();
  const waitedMs = () => performance.now() - startedAtMs;
  // Timers may fire a fraction of a millisecond early, hence the loop.
  for (let leftMs = totalMs; leftMs > 0; leftMs = totalMs - waitedMs()) {
    await pause(Math.min(Math.ceil(leftMs), reportEveryMs), ctx.signal);
    ctx.progress(Math.floor((waitedMs() / totalMs) * 100));
  }
  const nanos = BigInt(Math.floor(waitedMs() * 1_000_000));
  return { waited: { seconds: nanos / 1_000_000_000n, nanos: Number(nanos % 1_000_000_000n) } };
}

/** Rejects with the signal's reason as soon as it aborts. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((settle, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      settle();
    }, ms);
    signal.addEventListener("abort", stop, { once: true });
  });
}
