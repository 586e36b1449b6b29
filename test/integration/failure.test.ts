/** Steps that fail, over real servers and embedded: what catches a failure, as the guide shows it. */
import { defineAction, fail } from "@taskmesh/action-sdk";
import { EventKind, RunStatus, StepStatus } from "@taskmesh/proto";
import { unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { guideChain, TripActionsService, tripDescriptors } from "../fixtures/trip-actions.js";

const estimate = "acme.trips.v1.Trips/Estimate";
const soldOut = { type: "acme.trips.v1.SoldOut", value: new Uint8Array([8, 99]) };

describe.each(["servers", "embedded"] as const)("on %s", (on) => {
  let mesh: InProcessMesh;
  let tries = 0;

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
    const actions = [
      defineAction(TripActionsService.quote, ({ place }) => {
        tries += 1;
        if (place === "Rome") return { id: "q1", cents: 500 };
        if (place === "Bern") throw fail.final("SOLD_OUT", "no seat", { details: [soldOut] });
        throw fail.retryable("AWAY", "nobody answers");
      }),
      defineAction(TripActionsService.bookHotel, ({ place }) => {
        if (place === "Rome") return { code: "H1" };
        throw fail.final(place === "Oslo" ? "BURNT_DOWN" : "NO_ROOM", "no hotel");
      }),
    ];
    const embedded = on === "embedded" ? { carrier: mesh.coordinator.carrier } : {};
    await mesh.serve(actions, { descriptors: tripDescriptors, ...embedded });
    await mesh.putChain(guideChain("failure.md", estimate));
  }, 60_000);
  afterAll(() => mesh.stop());

  const run = async (place: string) => {
    tries = 0;
    const runId = await mesh.start({ method: estimate, input: { $case: "json", value: JSON.stringify({ place }) } });
    const result = await mesh.result(runId);
    const shown = await unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: false });
    const { data } = result.output ?? {};
    const output = data?.$case === "inline" ? Buffer.from(data.value).toString("latin1") : "";
    return { runId, result, output, steps: shown.steps };
  };

  it("a run whose steps succeed never asks the rules", async () => {
    const { result, output, steps } = await run("Rome");
    expect(result.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(output).toContain("H1");
    expect(steps.map(({ failure }) => failure)).toEqual([undefined, undefined]);
  });

  it("a caught failure gives the value that its typed details make, and the history says both", async () => {
    const { runId, result, output, steps } = await run("Bern");
    expect(result.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(output).toContain("sold out");
    expect(output.startsWith("\x08\x63"), "99 cents").toBe(true);
    expect(output).toContain("none");
    expect(steps.map(({ status, failure }) => [status, failure?.reason])).toEqual([
      [StepStatus.STEP_STATUS_SUCCEEDED, "SOLD_OUT"],
      [StepStatus.STEP_STATUS_FAILED, "NO_ROOM"],
    ]);
    const caught = (await mesh.history(runId)).filter(({ kind }) => kind === EventKind.EVENT_KIND_STEP_CAUGHT);
    const shown = caught.map(({ stepId, failure, payload }) => [stepId, failure?.reason, payload !== undefined]);
    expect(shown.sort()).toEqual([
      ["hotel", "NO_ROOM", false],
      ["quote", "SOLD_OUT", true],
    ]);
  });

  it("retries come before the rules", async () => {
    const { output } = await run("Paris");
    expect(tries).toBe(2);
    expect(output).toContain("AWAY");
  });

  it("a reason that no rule names fails the run", async () => {
    const { result } = await run("Oslo");
    expect(result.status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(result.failure?.reason).toBe("BURNT_DOWN");
  });
});
