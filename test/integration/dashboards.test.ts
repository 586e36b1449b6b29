/** The Grafana dashboards: what their generator makes, in a form that Grafana takes, and asking only for what the mesh exports. */
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { metricTables } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { dashboardSchema } from "../fixtures/dashboard-schema.js";
import { faultsOfQuery, seriesNames, seriesOf } from "../fixtures/promql.js";
import { promtool } from "../fixtures/promtool.js";

const folder = join(import.meta.dirname, "..", "..", "deploy", "grafana");
const files = readdirSync(join(folder, "dashboards"));
const load = (file: string) =>
  dashboardSchema.parse(JSON.parse(readFileSync(join(folder, "dashboards", file), "utf8")));
const dashboards = files.map((file) => [file, load(file)] as const);

/** Queries as Prometheus would get them. */
const filled = (text: string): string =>
  text
    .replaceAll("$__rate_interval", "1m")
    .replaceAll("$__interval", "1m")
    .replaceAll(/\$[a-z]+/g, "x");

const prometheusQueries = dashboards.flatMap(([file, { panels }]) =>
  panels.flatMap(({ title, targets }) =>
    targets.flatMap((target) => ("expr" in target ? [{ where: `${file}: ${title}`, expr: target.expr }] : [])),
  ),
);

describe("the dashboards", () => {
  it("are those that their tables make", async () => {
    const generator = join(folder, "generate.mjs");
    const made = (await import(generator)) as { dashboards: Record<string, object>; textOf(made: object): string };
    expect(files.toSorted()).toEqual(
      Object.keys(made.dashboards)
        .map((name) => `${name}.json`)
        .toSorted(),
    );
    for (const [name, one] of Object.entries(made.dashboards)) {
      const stored = readFileSync(join(folder, "dashboards", `${name}.json`), "utf8");
      expect(stored, "run node deploy/grafana/generate.mjs").toBe(made.textOf(one));
    }
    expect(files.map((file) => file.replace(".json", "")).toSorted()).toEqual(
      ["overview", "actions", "queues", "run-trace", "coordinator", "database-nats"].toSorted(),
    );
  });

  it.each(dashboards)("%s has panels that don't overlap, and variables that exist", (_file, dashboard) => {
    const { panels, templating } = dashboard;
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    for (const [index, { gridPos: a }] of panels.entries()) {
      expect(a.x + a.w).toBeLessThanOrEqual(24);
      for (const { gridPos: b } of panels.slice(index + 1)) {
        const apart = a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y;
        expect(apart, `panels at ${JSON.stringify([a, b])}`).toBe(true);
      }
    }
    const defined = new Set(templating.list.map(({ name }) => name));
    const text = JSON.stringify(panels);
    for (const [, used] of text.matchAll(/\$\{?([a-z][a-z_]*)/g)) expect(defined, `$${used}`).toContain(used);
  });

  it("ask only for metrics, labels and label values that exist", () => {
    expect(prometheusQueries.length).toBeGreaterThan(60);
    for (const { where, expr } of prometheusQueries) expect(faultsOfQuery(expr), `${where}: ${expr}`).toEqual([]);
    for (const [file, { templating }] of dashboards) {
      for (const variable of templating.list) {
        if (variable.type !== "query") continue;
        const [, series, label] = /^label_values\((\w+), (\w+)\)$/.exec(variable.query.query)!;
        expect(faultsOfQuery(`${series}{${label}="$x"}`), `${file}: ${variable.name}`).toEqual([]);
      }
    }
  });

  it("ask in PromQL", async () => {
    const work = await mkdtemp(join(tmpdir(), "taskmesh-queries-"));
    try {
      const rules = prometheusQueries.map(({ expr }, index) => ({ record: `query:${index}`, expr: filled(expr) }));
      await writeFile(join(work, "queries.yml"), JSON.stringify({ groups: [{ name: "dashboards", rules }] }));
      const { clean, output } = promtool(["check", "rules", join(work, "queries.yml")]);
      expect(clean, output).toBe(true);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });

  it("name units, and legends of labels that their queries keep", () => {
    for (const [file, { panels }] of dashboards) {
      for (const panel of panels) {
        if (panel.type !== "timeseries") continue;
        for (const target of panel.targets) {
          for (const [, label] of target.legendFormat.matchAll(/\{\{(\w+)\}\}/g)) {
            const kept =
              new RegExp(`by \\([^)]*\\b${label}\\b`).test(target.expr) || !/ by \(|^sum\(|^max\(/.test(target.expr);
            expect(kept, `${file}: ${panel.title}: ${label}`).toBe(true);
          }
        }
      }
    }
  });

  it("show every metric of the mesh somewhere", () => {
    const shown = prometheusQueries.flatMap(({ expr }) => seriesOf(expr));
    const metrics = Object.values(metricTables).flatMap((table) => Object.values(table) as { name: string }[]);
    const missing = metrics.filter(({ name }) => !shown.some((series) => series.startsWith(name)));
    expect(missing.map(({ name }) => name)).toEqual([]);
    expect(seriesNames.size).toBeGreaterThan(60);
  });

  it("lead from a run id to its trace by the attribute that spans have", () => {
    const { templating, panels } = load("run-trace.json");
    expect(templating.list.map(({ name, type }) => [name, type])).toEqual([
      ["traces", "datasource"],
      ["run", "textbox"],
    ]);
    for (const { targets } of panels) {
      for (const target of targets) {
        if (!("queryType" in target)) throw new Error("not a search for traces");
        expect(target.query).toContain('{ span.taskmesh.run.id = "$run" }');
      }
    }
  });

  it("are provisioned with the data sources that they ask for", () => {
    const read = (path: string) => parse(readFileSync(join(folder, "provisioning", path), "utf8"));
    const { datasources } = read("datasources/taskmesh.yaml") as { datasources: { type: string; uid: string }[] };
    expect(datasources.map(({ type }) => type).toSorted()).toEqual(["prometheus", "tempo"]);
    const { providers } = read("dashboards/taskmesh.yaml") as { providers: { options: { path: string } }[] };
    const compose = readFileSync(join(folder, "..", "compose", "compose.yaml"), "utf8");
    expect(compose).toContain(`../grafana/dashboards:${providers[0]!.options.path}:ro`);
  });
});

describe("queries that ask for what does not exist", () => {
  it.each([
    ["rate(taskmesh_runs_total[5m])", "there is no taskmesh_runs_total"],
    ["taskmesh_commit_seconds", "there is no taskmesh_commit_seconds"],
    ["taskmesh_attempts", "there is no taskmesh_attempts"],
    ['taskmesh_attempts_total{method="x"}', "taskmesh_attempts_total has no label method"],
    ['taskmesh_runs_ended_total{status="succeded"}', "taskmesh_runs_ended_total: status is never succeded"],
    ['taskmesh_runs_ended_total{status=~"failed|lost"}', "taskmesh_runs_ended_total: status is never lost"],
    ["sum by (lane) (taskmesh_ready_steps)", "nothing there has the label lane"],
    ["1 + 1", "it names no metric"],
  ])("are found: %s", (query, fault) => {
    expect(faultsOfQuery(query)).toEqual([fault]);
  });
});
