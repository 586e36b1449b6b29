/** The example of docs/guides/typescript-chains.md on a mesh, with workers that stand in for the web. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { defineAction } from "@taskmesh/action-sdk";
import { builtinDescriptors } from "@taskmesh/actions";
import { HtmlActionsService, HttpActionsService, TextActionsService } from "@taskmesh/actions/contracts";
import { ChainSpec, RunStatus } from "@taskmesh/proto";
import { parseChainDocument } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { pageReport } from "../guides/page-report.js";

const page = "<h1>Harbours</h1>".padEnd(1_200, "x");
const request = defineAction(HttpActionsService.request, ({ method, headers }) => ({
  status: method === "GET" && headers["x-run"] !== "" ? 200 : 400,
  headers: {},
  setCookies: [],
  text: page,
  binary: Buffer.alloc(0),
  url: "",
  contentType: "text/html",
  sizeBytes: BigInt(page.length),
  redirectCount: 0,
}));
const select = defineAction(HtmlActionsService.select, ({ css, textOnly, limit }) => ({
  text: css === "h1" && textOnly && limit === 1 ? "Harbours" : "",
  matches: [],
  count: 1,
}));
const render = defineAction(TextActionsService.render, ({ template, values }) => ({
  text: template.replace(/\{\{ (\w+) \}\}/g, (_, name: string) => values[name] ?? ""),
}));

describe.each(["embedded", "servers"] as const)("a chain in TypeScript, %s", (on) => {
  let mesh: InProcessMesh;
  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
    await mesh.serve([request, select, render], { descriptors: builtinDescriptors });
    await mesh.putChain(pageReport.spec);
  });
  afterAll(() => mesh.stop());

  const run = async (selector: string) => {
    const input = JSON.stringify({ url: "https://example.com", selectors: [selector] });
    const { status, output } = await mesh.result(
      await mesh.start({ method: pageReport.name, input: { $case: "json", value: input } }),
    );
    const bytes = output?.data?.$case === "inline" ? output.data.value : Buffer.alloc(0);
    return { status, text: bytes.toString("latin1") };
  };

  it("runs as the same chain in YAML would", async () => {
    const found = await run("h1");
    expect(found.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(found.text).toContain("Harbours: 1200 characters");
    // Without a heading the step "line" is skipped.
    expect((await run("h2")).text).toContain("https://example.com");
  });
});

describe("the example in TypeScript and in YAML", () => {
  it("are the same ChainSpec", () => {
    const text = readFileSync(join(import.meta.dirname, "../guides/page-report.yaml"), "utf8");
    expect(ChainSpec.toJSON(pageReport.spec)).toEqual(ChainSpec.toJSON(parseChainDocument(text).spec!));
  });

  it("stand in the guide as they are", () => {
    const guide = readFileSync(join(import.meta.dirname, "../../docs/guides/typescript-chains.md"), "utf8");
    expect(guide).toContain(readFileSync(join(import.meta.dirname, "../guides/page-report.ts"), "utf8"));
  });
});
