/** The interactive page of the API document in a real browser, under the policy that it is served with. */
import { defineAction } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { openPage, type Page } from "../fixtures/browser.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { PageActionsService } from "../fixtures/page-actions.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";

const token = "correct-horse-battery-staple";
const service = "acme.pages.v1.PageActions";

let mesh: InProcessMesh;
let open: Gateway;
let guarded: Gateway;
let page: Page | undefined;

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "embedded" });
  const score = defineAction(PageActionsService.score, async ({ text }) => ({ words: text.split(" ").length }));
  await mesh.serve([score], { carrier: mesh.coordinator.carrier });
  open = await startTestGateway([mesh.address.port]);
  guarded = await startTestGateway([mesh.address.port], { tokens: { tokens: [token] } });
});
afterEach(async () => {
  await page?.close();
  page = undefined;
});
afterAll(async () => {
  await Promise.all([open?.stop(), guarded?.stop()]);
  await mesh?.stop();
});

/** Opens the method on the page and tries it out: answers with the status and the body that the page shows. */
async function tryOut(shown: Page): Promise<{ status: string; body: string }> {
  await shown.click(`[data-tag="${service}"] button`);
  await shown.click(".opblock-summary-control");
  await shown.click(".try-out__btn");
  await shown.click(".execute");
  const cell = (name: string) => `document.querySelector(".live-responses-table tbody .response-col_${name}")`;
  await shown.until(cell("status"));
  const textOf = (name: string) => shown.evaluate<string>(`${cell(name)}.innerText`);
  return { status: await textOf("status"), body: await textOf("description") };
}

describe("the page of the API document", () => {
  it("is served under a policy without inline scripts, inline styles or other origins", async () => {
    const { headers } = await ask(open, "/docs");
    const policy = String(headers["content-security-policy"]);
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("script-src 'self';");
    expect(policy).not.toMatch(/unsafe|https?:|\*/);
  });

  it("shows the live contracts and calls them, and its policy has nothing to stop", async () => {
    page = await openPage(`http://${open.address}/docs`);
    const { status, body } = await tryOut(page);
    expect(status).toContain("200");
    expect(body).toContain('"words"');
    expect(page.faults).toEqual([]);
    expect(
      page.requests.filter((url) => !/^(data:|about:)/.test(url) && !url.startsWith(`http://${open.address}/`)),
    ).toEqual([]);
  });

  it("asks for the token where the gateway wants one, and uses it", async () => {
    page = await openPage(`http://${guarded.address}/docs`);
    await page.until("document.querySelector('#access:not([hidden])')");
    await page.evaluate(`document.getElementById("token").value = ${JSON.stringify(token)}`);
    await page.click("#access button");
    expect((await tryOut(page)).status).toContain("200");
    // The refused first look at the document is an error to the browser, and the only one.
    expect(page.faults.filter((fault) => !fault.includes("401"))).toEqual([]);
  });
});
