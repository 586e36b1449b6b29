/** The alert rules: Prometheus takes them, each fires when it must and only then, asks for metrics that exist, and has a runbook. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { faultsOfQuery } from "../fixtures/promql.js";
import { promtool } from "../fixtures/promtool.js";

const root = join(import.meta.dirname, "..", "..");
const folder = join(root, "deploy", "prometheus");

interface Rule {
  alert: string;
  expr: string;
  labels: { severity: string };
  annotations: { summary: string; runbook: string };
}

const { groups } = parse(readFileSync(join(folder, "alerts.yml"), "utf8")) as { groups: { rules: Rule[] }[] };
const rules = groups.flatMap((group) => group.rules);
const runbooks = readFileSync(join(root, "docs", "runbooks.md"), "utf8");
const sections = [...runbooks.matchAll(/^## (.+)$/gm)].map(([, title]) => title!);

describe("the alert rules", () => {
  it("are rules that Prometheus takes", () => {
    const { clean, output } = promtool(["check", "rules", join(folder, "alerts.yml")]);
    expect(clean, output).toBe(true);
    expect(output).toContain(`${rules.length} rules found`);
  });

  it("fire when they must, and are silent before", () => {
    const { clean, output } = promtool(["test", "rules", join(folder, "alerts.test.yml")]);
    expect(clean, output).toBe(true);
    const { tests } = parse(readFileSync(join(folder, "alerts.test.yml"), "utf8")) as {
      tests: { alert_rule_test: { alertname: string; exp_alerts: unknown[] }[] }[];
    };
    const cases = tests.flatMap((one) => one.alert_rule_test);
    for (const { alert } of rules) {
      const firing = cases
        .filter(({ alertname }) => alertname === alert)
        .map(({ exp_alerts }) => exp_alerts.length > 0);
      expect([firing.includes(true), firing.includes(false)], `${alert} is tested to fire and to be silent`).toEqual([
        ...[true, true],
      ]);
    }
  });

  it.each(rules.map((rule) => [rule.alert, rule] as const))(
    "%s asks for metrics that exist, and has a runbook",
    (name, rule) => {
      expect(faultsOfQuery(rule.expr)).toEqual([]);
      expect(["page", "ticket"]).toContain(rule.labels.severity);
      expect(rule.annotations.summary).toMatch(/\.$/);
      const [file, anchor] = rule.annotations.runbook.split("#");
      expect(file).toBe("docs/runbooks.md");
      expect(sections.map((title) => title.toLowerCase())).toContain(anchor);
      expect(anchor).toBe(name.toLowerCase());
    },
  );

  it("have no runbook too many, and each says where to look and what to do", () => {
    expect(sections.toSorted()).toEqual(rules.map(({ alert }) => alert).toSorted());
    for (const text of runbooks.split(/^## /m).slice(1)) expect(text).toMatch(/\n- Look: .+\n- Do: /s);
  });
});
