// Makes the chart's README.md: deploy/helm/README.head.md, then a table of every setting from the comments of values.yaml that begin with
// two dashes. A setting without such a comment, nor within one that has it, is an error.
//
// node deploy/helm/chart-docs.mjs            writes it
// node deploy/helm/chart-docs.mjs --check    exit code 1 when it is not what would be written
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isMap, parseDocument } from "yaml";

const folder = import.meta.dirname;
const chart = join(folder, "taskmesh");
const target = join(chart, "README.md");

/** The documentation among the comments before a key. */
function docOf(comment) {
  const [, text] = /(?:^|\n) ?-- ([\s\S]+)$/.exec(comment ?? "") ?? [];
  return text
    ?.split("\n")
    .map((line) => line.trim())
    .join(" ");
}

/** Rows of a map, and the settings that nothing documents. `within`: whether a setting above is documented as a whole. */
function rowsOf(map, path, within) {
  const rows = [];
  const missing = [];
  map.items.forEach((pair, index) => {
    const name = [...path, pair.key.value].join(".");
    // The comment before the first key of a map stands before the map.
    const comment = pair.key.commentBefore ?? (index === 0 ? map.commentBefore : undefined);
    const doc = docOf(comment);
    const value = pair.value?.toJSON() ?? null;
    if (doc) rows.push({ name, doc, value });
    const inner = isMap(pair.value)
      ? rowsOf(pair.value, [...path, pair.key.value], within || doc !== undefined)
      : undefined;
    rows.push(...(inner?.rows ?? []));
    if (inner) missing.push(...inner.missing);
    else if (!doc && !within) missing.push(name);
  });
  return { rows, missing };
}

const cell = (text) => text.replaceAll("|", "\\|");
const document = parseDocument(readFileSync(join(chart, "values.yaml"), "utf8"));
const { rows, missing } = rowsOf(document.contents, [], false);
if (missing.length > 0) {
  console.error(`values.yaml has settings without a comment "# -- …": ${missing.join(", ")}`);
  process.exit(1);
}
const table = rows.map(({ name, doc, value }) => `| \`${name}\` | \`${cell(JSON.stringify(value))}\` | ${cell(doc)} |`);
const text = `${readFileSync(join(folder, "README.head.md"), "utf8").trimEnd()}

## Settings

Made from the comments of values.yaml by deploy/helm/chart-docs.mjs; change them there.

| setting | default | what it does |
|---|---|---|
${table.join("\n")}
`;
if (process.argv.includes("--check")) {
  const same = readFileSync(target, "utf8") === text;
  if (!same)
    console.error("deploy/helm/taskmesh/README.md is not what values.yaml says: run node deploy/helm/chart-docs.mjs");
  process.exit(same ? 0 : 1);
}
writeFileSync(target, text);
