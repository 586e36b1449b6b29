/**
 * Holds docs/errors.md and docs/guides/configuration.md equal to the code, and the comments of the protos to the reasons.
 * After a change: `npx vitest run runtime/src/docs.test.ts -u`.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { settingsMarkdown } from "./config.js";
import { failureReasons } from "./failure-reasons.js";
import { metricTables } from "./metric-table.js";
import { type AnyMetric, type Label, seriesMax, valuesMax } from "./metric-values.js";
import { type ReasonEntry, reasons } from "./reasons.js";
import { settingsTables } from "./settings.js";
import { codeName, status, toHttpStatus } from "./status.js";

const root = join(import.meta.dirname, "../..");
const doc = (name: string): string => join(root, "docs", name);
const table: Readonly<Record<string, ReasonEntry>> = reasons;

const row = (...cells: (string | number)[]): string =>
  `| ${cells.map((cell) => String(cell).replaceAll("|", "\\|")).join(" | ")} |`;

function errorsMarkdown(): string {
  const codes = [...new Set(Object.values(table).map(({ code }) => code))].sort((a, b) => a - b);
  const sections = codes.map((code) => {
    const rows = Object.entries(table)
      .filter(([, entry]) => entry.code === code)
      .map(([name, { http, meaning, fix }]) => row(`\`${name}\`${http ? ` (HTTP ${http})` : ""}`, meaning, fix));
    const head = `### ${codeName(code)} (gRPC ${code}, HTTP ${toHttpStatus(code)})`;
    return [head, "", "| reason | what happened | what to do |", "|---|---|---|", ...rows, ""].join("\n");
  });
  const failures = Object.entries(failureReasons).map(([name, { retryable, meaning }]) =>
    row(`\`${name}\``, retryable ? "yes" : "no", meaning),
  );
  return `# Errors

<!-- Made from runtime/src/reasons.ts by runtime/src/docs.test.ts; change it there. -->

Every error names a **reason**: act on it, never on the text. There are two kinds.

- A *status* is what a call says when it does not succeed. Over gRPC it is a code with \`google.rpc.Status\` in the trailer
  \`grpc-status-details-bin\`: \`ErrorInfo\` (reason, domain \`taskmesh\`), \`BadRequest\` where fields are at fault, \`RetryInfo\` where
  a retry makes sense, and typed details of \`taskmesh.v1\`. Over REST it is \`application/problem+json\` (RFC 9457) with the same facts.
- A *failure* is how an attempt, a step or a run ended. It is part of an answer, not an error of the call that asks for it.

Calls that failed with UNAVAILABLE, or with a \`RetryInfo\`, may be repeated; a start of a run with the same idempotency key starts
nothing twice. INTERNAL is a fault of the mesh: its message holds a trace id and nothing else, and the log line with that id holds the cause.

## Reasons of statuses

A status of a server that is not the mesh, or of the gRPC library, has no reason of ours; clients of the mesh then show the one that fits
its code, or the code's own name.

${sections.join("\n")}
## Reasons of failures

Actions add their own, in UPPER_SNAKE. These come from the mesh. *Retried* means: if the step's retry policy allows another attempt.

| reason | retried | what happened |
|---|---|---|
${failures.join("\n")}
`;
}

function configurationMarkdown(): string {
  const sections = Object.entries(settingsTables).map(
    ([name, settings]) => `## ${name}\n\n${settingsMarkdown(settings)}\n`,
  );
  return `# Configuration

<!-- Made from runtime/src/settings.ts by runtime/src/docs.test.ts; change it there. -->

Every process reads environment variables and nothing else. All faults are reported at once, before anything starts. A variable that is set
to nothing counts as not set. Where a \`_FILE\` variable is listed, the value may stand in a file instead, which is how secrets should
be given; secrets never appear in logs. Units are part of a name (\`_SECONDS\`, \`_BYTES\`).

\`npx taskmesh dev\` needs none of this: it brings its own database and transport and listens on 127.0.0.1.

${sections.join("\n")}`;
}

const metricSections: Record<keyof typeof metricTables, string> = {
  coordinator: "Coordinators",
  worker: "Workers",
  gateway: "Gateways",
  process: "Every process",
};

function metricsMarkdown(): string {
  const labels = new Map<string, Label>();
  const sections = Object.entries(metricTables).map(([role, table]) => {
    const rows = (Object.values(table) as AnyMetric[]).map((metric) => {
      for (const label of metric.labels) labels.set(`${label.name} ${label.doc}`, label);
      const name = metric.kind === "counter" ? `${metric.name}_total` : metric.name;
      return row(`\`${name}\``, metric.kind, metric.labels.map(({ name }) => `\`${name}\``).join(", "), metric.help);
    });
    const head = ["| metric | kind | labels | what it says |", "|---|---|---|---|"];
    return [`## ${metricSections[role as keyof typeof metricTables]}`, "", ...head, ...rows, ""].join("\n");
  });
  const labelRows = [...labels.values()].map(({ name, doc, values }) =>
    row(`\`${name}\``, doc, values ? values.map((value) => `\`${value}\``).join(" ") : "names that users give"),
  );
  return `# Metrics

<!-- Made from runtime/src/metric-table.ts by runtime/src/docs.test.ts; change it there. -->

In Prometheus' text format: of a coordinator at \`TASKMESH_METRICS_ADDRESS\`, of a gateway at \`/metrics\` of its own address, of a worker at
\`TASKMESH_WORKER_METRICS_ADDRESS\` where that is set. A bearer token of the process is asked for if it has any. \`deploy/prometheus/\` has a configuration and
alert rules, each with a [runbook](runbooks.md); \`deploy/grafana/\` has dashboards, made by its \`generate.mjs\`: overview, actions and chains, queues and
workers, coordinators, database and NATS, and a run's trace by its id.

Counting is an addition to a number in memory, done after the commit that made it true. Counters are of one process: sum over processes. Gauges that say
"of the whole mesh" are the same on every coordinator: take the maximum. They come from one query, made every ten seconds while anybody scrapes,
however many do; when the database is away they keep their last value, and \`taskmesh_database_up\` is 0.

Labels that hold names keep at most ${valuesMax} different names each, and a metric at most ${seriesMax.toLocaleString("en")} series of them; what comes later is counted under \`other\`.
No label holds a run's or a step's id.

${sections.join("\n")}
## Labels

| label | what it says | values |
|---|---|---|
${labelRows.join("\n")}
`;
}

describe("the documents", () => {
  it("docs/metrics.md is made of the table of instruments", async () => {
    await expect(metricsMarkdown()).toMatchFileSnapshot(doc("metrics.md"));
  });

  it("docs/errors.md is made of the registry of reasons", async () => {
    await expect(errorsMarkdown()).toMatchFileSnapshot(doc("errors.md"));
  });

  it("docs/guides/configuration.md is made of the tables of settings", async () => {
    await expect(configurationMarkdown()).toMatchFileSnapshot(doc("guides/configuration.md"));
  });
});

describe("the settings", () => {
  it("list every variable that any package declares", () => {
    const known = new Set(
      Object.values(settingsTables).flatMap((table) => Object.values(table).map(({ variable }) => variable)),
    );
    for (const folder of ["action-sdk/src", "actions/src", "cli/src", "coordinator/src", "gateway/src"]) {
      for (const file of readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })) {
        if (!file.endsWith(".ts") || file.endsWith(".test.ts")) continue;
        const source = readFileSync(join(root, folder, file), "utf8");
        for (const [, variable] of source.matchAll(/variable: "([A-Z_]+)"|env\.(TASKMESH_[A-Z_]+)/g)) {
          if (variable) expect(known, `${folder}/${file}: ${variable}`).toContain(variable);
        }
      }
    }
  });
});

describe("the registry of reasons", () => {
  const sources = ["action-sdk/src", "actions/src", "coordinator/src", "gateway/src", "runtime/src"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts") && !/\.test\.ts$|reasons\.ts$/.test(file))
      .map((file) => readFileSync(join(root, folder, file), "utf8")),
  );
  const said = new Set(sources.join("\n").match(/\b[A-Z][A-Z_]{3,}\b/g));

  it("holds nothing that no code says", () => {
    const unsaid = [...Object.keys(reasons), ...Object.keys(failureReasons)].filter((reason) => !said.has(reason));
    expect(unsaid).toEqual([]);
  });
});

/** Words of the protos in the form of a reason that are none. */
const notReasons = new Set(["UPPER_SNAKE", "RATE_LIMITED"]);

describe("the comments of the protos", () => {
  const folder = join(root, "proto/taskmesh/v1");
  const comments = readdirSync(folder).map((file) => {
    const lines = readFileSync(join(folder, file), "utf8").split("\n");
    const said = lines.flatMap((line) => /^\s*\/\/ ?(.*)$/.exec(line)?.[1] ?? (line.trim() === "" ? [] : ["\n"]));
    return { file, text: said.join(" ") };
  });

  it("name only reasons that are registered, each with its code", () => {
    let found = 0;
    for (const { file, text } of comments) {
      for (const [sentence] of text.matchAll(
        /[^.:]*:[^:]*?\breason\s+[A-Z_]+|With [A-Z_]+ [^.]*?reason [A-Z_]+|With [A-Z_]+, reason [A-Z_]+/g,
      )) {
        const reason = /reason\s+([A-Z][A-Z_]+)/.exec(sentence)?.[1];
        if (!reason || notReasons.has(reason)) continue;
        const entry = table[reason];
        expect(entry, `${file}: ${reason} is not in reasons.ts`).toBeDefined();
        const named = [...sentence.matchAll(/\b[A-Z][A-Z_]+\b/g)].map(([word]) => word).find((word) => word in status);
        if (named) expect(codeName(entry!.code), `${file}: ${reason}`).toBe(named);
        found += 1;
      }
    }
    // The pattern finds what it is meant to find.
    expect(found).toBeGreaterThanOrEqual(10);
  });

  it("name only codes that exist", () => {
    const names = Object.keys(status).filter((name) => Number.isNaN(Number(name)));
    for (const { file, text } of comments) {
      for (const [, word] of text.matchAll(/(?:^|[.] )([A-Z]+_[A-Z_]+): /g)) {
        if (notReasons.has(word!) || /^(?:RUN|STEP)_/.test(word!)) continue;
        expect(names, `${file}: ${word}`).toContain(word);
      }
    }
  });
});
