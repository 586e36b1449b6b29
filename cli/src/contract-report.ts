/** What the gate says of contracts, as text for people and as JUnit XML for build servers. */
import { type JsonObject, object, objects, text, texts } from "./json.js";
import { type Colors, plain } from "./output.js";

/** One judgement of the gate, in canonical JSON of taskmesh.v1.ContractJudgement. */
export type Judgement = JsonObject;

const verdictOf = (judgement: Judgement): string => text(judgement.verdict).replace("CONTRACT_VERDICT_", "");

/** Whether a registration would not get through, or (`strict`) whether anything breaks at all. */
export function isBad(judgement: Judgement, strict: boolean): boolean {
  const verdict = verdictOf(judgement);
  if (verdict === "REFUSED" || verdict === "QUARANTINED") return true;
  return strict && objects(judgement.violations).length > 0;
}

/** "proto/shop.proto:5", relative to the present folder. */
function placeOf(violation: JsonObject, root: string): string {
  const file = plain(text(violation.file));
  const line = Number(violation.line ?? 0);
  return `${root === "" ? "" : `${root}/`}${file}${line > 0 ? `:${line}` : ""}`;
}

const violationLine = (violation: JsonObject, root: string): string =>
  plain(`${placeOf(violation, root)} ${text(violation.subject)} ${text(violation.message)} [${text(violation.rule)}]`);

const useKinds: Record<string, string> = {
  FIELD_USE_KIND_READ: "reads",
  FIELD_USE_KIND_WRITE: "sets",
  FIELD_USE_KIND_PASS: "passes on",
};

/** "reads shop.v1.Order.total at output.value: steps.price.output.order.total". */
export function describeUse(use: JsonObject): string {
  const expression = text(use.expression).slice(Number(use.start ?? 0), Number(use.end ?? 0) || undefined);
  const what = `${useKinds[text(use.kind)] ?? "uses"} ${text(use.field)} at ${text(use.path)}`;
  return plain(`${what}${expression === "" ? "" : `: ${expression}`}`);
}

function chainLines(chain: JsonObject): string[] {
  const live = Number(chain.liveRuns ?? 0);
  const runs =
    live === 0 ? "" : `; ${live} live runs (${texts(chain.runIds).slice(0, 3).join(", ")}${live > 3 ? ", …" : ""})`;
  const unserved = chain.unserved === true ? `: workers of it can't take ${texts(chain.steps).join(", ")}` : "";
  const head = `chain ${text(chain.name)} version ${String(chain.version ?? 0)}${unserved}${runs}`;
  return [plain(head), ...objects(chain.uses).map((use) => `  ${describeUse(use)}`)];
}

/** What a contract breaks, without its head. */
function detailLines(judgement: Judgement, root: string): string[] {
  const violations = objects(judgement.violations);
  const lines = violations.flatMap((violation) => [
    violationLine(violation, root),
    ...(text(violation.fix) === "" ? [] : [`  ${plain(text(violation.fix))}`]),
  ]);
  const alone = Number(judgement.liveRuns ?? 0);
  const runs =
    alone === 0 ? [] : [`${alone} live runs of the action: ${texts(judgement.runIds).slice(0, 3).join(", ")}`];
  return [...lines, ...objects(judgement.chains).flatMap(chainLines), ...runs];
}

/** The report for people, line by line. */
export function textReport(judgements: readonly Judgement[], root: string, strict: boolean, colors: Colors): string[] {
  return judgements.flatMap((judgement) => {
    const verdict = verdictOf(judgement);
    const paint = isBad(judgement, strict) ? colors.red : verdict === "ALLOWED" ? colors.yellow : colors.green;
    const base = Number(judgement.baseRevision ?? 0);
    const against = base === 0 ? "" : colors.dim(`  against revision ${base}`);
    const reason = text(judgement.reason) === "" ? "" : colors.dim(`  (${plain(text(judgement.reason))})`);
    const head = `${paint(verdict.toLowerCase().padEnd(11))} ${plain(text(judgement.method))}${against}${reason}`;
    return [head, ...detailLines(judgement, root).map((line) => `  ${line}`)];
  });
}

/** How to go on after a refusal, with the command that lets the first contract pass. */
export function hintOf(judgements: readonly Judgement[], strict: boolean): string | undefined {
  const first = judgements.find((judgement) => isBad(judgement, strict));
  if (first === undefined) return undefined;
  return `Evolve it compatibly, or let it pass: taskmesh contracts allow ${text(first.method)} ${text(first.contract)} --reason "…"`;
}

const escapeXml = (value: string): string =>
  value
    // biome-ignore lint/suspicious/noControlCharactersInRegex: XML has no form for them
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, "\ufffd")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");

/** The report as JUnit XML: a test case per contract. */
export function junitReport(judgements: readonly Judgement[], root: string, strict: boolean): string {
  const bad = judgements.filter((judgement) => isBad(judgement, strict)).length;
  const cases = judgements.map((judgement) => {
    const [service = "", rpc = ""] = text(judgement.method).split("/");
    const head = `    <testcase classname="${escapeXml(service)}" name="${escapeXml(rpc)}" time="0"`;
    const details = detailLines(judgement, root).join("\n");
    if (!isBad(judgement, strict)) {
      return details === ""
        ? `${head}/>`
        : `${head}>\n      <system-out>${escapeXml(details)}</system-out>\n    </testcase>`;
    }
    const first = object(objects(judgement.violations)[0]);
    const message = `${text(first.subject)} ${text(first.message)}`.trim() || verdictOf(judgement).toLowerCase();
    const type = text(first.rule) || verdictOf(judgement);
    return `${head}>\n      <failure type="${escapeXml(type)}" message="${escapeXml(message)}">${escapeXml(details)}</failure>\n    </testcase>`;
  });
  const counts = `tests="${judgements.length}" failures="${bad}" errors="0" skipped="0"`;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites ${counts}>`,
    `  <testsuite name="taskmesh contracts" ${counts}>`,
    ...cases,
    "  </testsuite>",
    "</testsuites>",
    "",
  ].join("\n");
}
