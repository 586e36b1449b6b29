/** Which of the reports in a session's beats are news: each beat repeats the newest, and only a new one is stored. */
import { Any, type AttemptBeat } from "@taskmesh/proto";
import type { HandlerReport } from "../pipeline/ports.js";

export class ReportWatch {
  #stored = new Map<string, Pick<AttemptBeat, "progress" | "checkpoint">>();

  /** What the attempt's handler reported since it was stored last; undefined: nothing. */
  newsOf({ lease, progress, checkpoint }: AttemptBeat): HandlerReport | undefined {
    if (!progress && !checkpoint) return undefined;
    const before = this.#stored.get(lease);
    const said =
      progress?.percent !== before?.progress?.percent ||
      (progress?.message ?? "") !== (before?.progress?.message ?? "");
    const kept = checkpoint !== undefined && !isSame(checkpoint, before?.checkpoint);
    if (!said && !kept) return undefined;
    const { percent = 0, message = "" } = progress ?? {};
    return { percent, message, ...(kept ? { checkpoint: Any.encode(checkpoint).finish() } : {}) };
  }

  /** The beat's report is in the database. */
  stored({ lease, progress, checkpoint }: AttemptBeat): void {
    this.#stored.set(lease, { progress, checkpoint });
  }

  /** Forgets attempts that are no longer listed. */
  keep(leases: ReadonlySet<string>): void {
    for (const lease of this.#stored.keys()) if (!leases.has(lease)) this.#stored.delete(lease);
  }
}

const isSame = (a: Any, b: Any | undefined): boolean =>
  b !== undefined && a.typeUrl === b.typeUrl && Buffer.compare(a.value, b.value) === 0;
