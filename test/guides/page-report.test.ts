import { builtinDescriptors } from "@taskmesh/actions";
import { HtmlActionsService, HttpActionsService, TextActionsService } from "@taskmesh/actions/contracts";
import { failsForGood, failsForNow, inTurn, rehearse, stub, takes } from "@taskmesh/coordinator/testing";
import { expect, it } from "vitest";
import { pageReport } from "./page-report.js";

const select = stub(HtmlActionsService.select, ({ html, css }) => ({
  text: html.match(new RegExp(`<${css}>(.*)</${css}>`))?.[1] ?? "",
}));
const render = stub(TextActionsService.render, ({ values }) => ({ text: `${values["title"]}: ${values["size"]}` }));
const pages = (...answers: Parameters<typeof inTurn>) => stub(HttpActionsService.request, inTurn(...answers) as never);
const report = (request: ReturnType<typeof pages>) =>
  rehearse(pageReport, {
    descriptors: [builtinDescriptors],
    input: { url: "https://example.com", selectors: ["h1"] },
    actions: [request, select, render],
  });

it("names the page by its heading", async () => {
  const run = await report(pages({ status: 200, text: "<h1>Harbours</h1>" }));
  expect(run).toMatchObject({
    status: "SUCCEEDED",
    path: ["fetch", "title", "line"],
    output: { line: "Harbours: 17" },
  });
});

it("names a page without a heading by its address", async () => {
  const run = await report(pages({ status: 200, text: "nothing" }));
  expect(run.output).toMatchObject({ line: "https://example.com" });
  expect(run.steps["line"]?.status).toBe("SKIPPED");
});

it("asks again while the site is down, and gives up on a page that is gone", async () => {
  const busy = failsForNow("HTTP_STATUS", "503");
  const run = await report(pages(busy, takes(15_000, busy), { status: 200, text: "<h1>At last</h1>" }));
  expect(run.steps["fetch"]).toMatchObject({ attempts: 3, inputs: [{ url: "https://example.com" }, {}, {}] });
  expect(run.elapsedMs).toBeGreaterThanOrEqual(15_000);
  const gone = await report(pages(failsForGood("HTTP_STATUS", "410")));
  expect(gone).toMatchObject({ status: "FAILED", failure: { reason: "HTTP_STATUS" }, path: ["fetch"] });
});
