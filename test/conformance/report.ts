/**
 * The report: TAP 14, so that every tool that reads TAP reads it, with the section of the protocol page under each failed case.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Verdict } from "./run-cases.js";

const page = "docs/worker-protocol.md";

/** Titles of the page's sections by number. */
export function readSections(
  text = readFileSync(join(import.meta.dirname, "../..", page), "utf8"),
): Map<string, string> {
  return new Map([...text.matchAll(/^## (\d+)\. (.+)$/gm)].map(([, number, title]) => [number!, title!]));
}

/** "docs/worker-protocol.md#6-an-attempt (6.7)". */
export function sectionLink(section: string, titles: ReadonlyMap<string, string>): string {
  const number = section.split(".")[0]!;
  const title = titles.get(number) ?? "";
  const anchor = `${number}-${title
    .toLowerCase()
    .replace(/[^a-z0-9 -]/g, "")
    .replaceAll(" ", "-")}`;
  return `${page}#${anchor} (${section})`;
}

/** The first lines. */
export const reportHead = (count: number): string => `TAP version 14\n1..${count}\n`;

/** The lines of one case. */
export function reportCase(verdict: Verdict, index: number, titles: ReadonlyMap<string, string>): string {
  const { name, section, breaches, output, tookMs } = verdict;
  const state = breaches.length === 0 ? "ok" : "not ok";
  const line = `${state} ${index + 1} - ${name} (§${section}, ${(tookMs / 1000).toFixed(1)} s)`;
  if (breaches.length === 0) return `${line}\n`;
  const told = breaches.flatMap((breach) => [
    `    - rule: ${quote(breach.message)}`,
    `      section: ${quote(sectionLink(breach.section, titles))}`,
  ]);
  const said =
    output.trim() === ""
      ? ["  output: none"]
      : [
          "  output: |",
          ...output
            .trim()
            .split("\n")
            .map((text) => `    ${text}`),
        ];
  return [line, "  ---", "  broken:", ...told, ...said, "  ...", ""].join("\n");
}

/** The last lines. */
export function reportEnd(verdicts: readonly Verdict[]): string {
  const failed = verdicts.filter(({ breaches }) => breaches.length > 0);
  const sections = [...new Set(failed.flatMap(({ breaches }) => breaches.map(({ section }) => `§${section}`)))];
  const where = sections.length === 0 ? "" : `# broken: ${sections.join(", ")} of ${page}\n`;
  return `${where}# ${verdicts.length - failed.length} passed, ${failed.length} failed\n`;
}

const quote = (text: string): string => JSON.stringify(text);
