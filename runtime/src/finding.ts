/** One thing that was looked at in a deployment, and what to do if it is not as it should be. */
export interface Finding {
  /** What it is about: node, configuration, postgres, nats, clock, mesh. */
  area: string;
  /** What was looked at, in a few words. */
  check: string;
  /** fail: work stops or is lost; warn: it works, but worse or less safely than it could. */
  level: "ok" | "warn" | "fail";
  /** What was found. */
  found: string;
  /** What to do, unless it is ok. */
  fix?: string;
}

/** Collects findings of one area; without a verdict what was found is as it should be. */
export function findingsOf(area: string): {
  list: Finding[];
  add(check: string, found: string, verdict?: { level: "warn" | "fail"; fix: string } | false): void;
} {
  const list: Finding[] = [];
  return {
    list,
    add(check, found, verdict) {
      list.push({
        area,
        check,
        found,
        level: verdict ? verdict.level : "ok",
        ...(verdict ? { fix: verdict.fix } : {}),
      });
    },
  };
}
