/**
 * Runs, steps and events as JSON for readers: payloads decoded with the revision that they were written with, sensitive fields
 * masked.
 *
 * A payload that can't be shown does not hide the rest: in its place stands `{"@payload": {contract, sizeBytes, reference,
 * omitted}}`, where `omitted` says why.
 */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import {
  Attempt,
  EventKind,
  type Failure,
  type GetRunResponse,
  Item,
  ItemCounts,
  type ListItemsResponse,
  type Payload,
  Run,
  RunEvent,
  Step,
} from "@taskmesh/proto";
import type { Contract, ContractCache } from "./contracts.js";
import { payloadToJson, readPayload, type Side } from "./payloads.js";
import { failureToJson, render } from "./render.js";
import type { CallOptions, Upstream } from "./upstream.js";

/** Bytes of payloads decoded for one answer; more would block the gateway for others. */
const VIEW_BYTES_MAX = 4 * 1024 * 1024;

/** What a payload belongs to. */
interface Origin {
  namespace: string;
  /** The callable whose contract it follows. */
  method: string;
  /** Fingerprint to use where the envelope names none. */
  contract?: string;
  side: Side;
}

/** Renders for one request: it keeps the budget of the answer. */
export class RunView {
  private bytesLeft = VIEW_BYTES_MAX;

  constructor(
    private readonly upstream: Upstream,
    private readonly contracts: ContractCache,
    private readonly options: CallOptions,
  ) {}

  /** The answer of GetRun. */
  async run(response: GetRunResponse): Promise<JsonObject> {
    const run = response.run ?? Run.fromPartial({});
    const { namespace, method, contract } = run;
    const view: JsonObject = { run: await this.header(run) };
    const origin = { namespace, method, contract };
    await this.add(view, "input", response.input, { ...origin, side: "input" });
    await this.add(view, "output", response.output, { ...origin, side: "output" });
    const steps: JsonObject[] = [];
    for (const step of response.steps) steps.push(await this.step(namespace, step));
    view["steps"] = steps;
    return view;
  }

  /** A run without its steps. */
  async header(run: Run): Promise<JsonObject> {
    const json = render("Run", Run, { ...run, failure: undefined });
    await this.addFailure(json, run.failure, run);
    return json;
  }

  async event(run: Run, event: RunEvent, methodOf: (stepId: string) => string): Promise<JsonObject> {
    const json = render("RunEvent", RunEvent, { ...event, payload: undefined, failure: undefined });
    const isStep = event.stepId !== "";
    const method = isStep ? methodOf(event.stepId) : run.method;
    const origin = { namespace: run.namespace, method, ...(isStep ? {} : { contract: run.contract }) };
    const side = event.kind === EventKind.EVENT_KIND_RUN_ACCEPTED ? "input" : "output";
    await this.add(json, "payload", event.payload, { ...origin, side });
    await this.addFailure(json, event.failure, origin);
    return json;
  }

  /** A page of a fan-out's items. */
  async items(namespace: string, method: string, page: ListItemsResponse): Promise<JsonObject> {
    const origin = { namespace, method };
    const items: JsonObject[] = [];
    for (const item of page.items) {
      const json = render("Item", Item, { ...item, input: undefined, output: undefined, failure: undefined });
      await this.add(json, "input", item.input, { ...origin, side: "input" });
      await this.add(json, "output", item.output, { ...origin, side: "output" });
      await this.addFailure(json, item.failure, origin);
      items.push(json);
    }
    const { counts, nextPageToken } = page;
    return { items, nextPageToken, ...(counts ? { counts: render("ItemCounts", ItemCounts, counts) } : {}) };
  }

  /** The value of one payload, whatever its size; masked. Throws where it can't be read. */
  async value(payload: Payload, origin: Origin): Promise<JsonValue> {
    const contract = await this.contractOf(payload, origin);
    const bytes = await readPayload(this.upstream, origin.namespace, payload, this.options);
    return payloadToJson(contract, origin.side, bytes, true);
  }

  private async step(namespace: string, step: Step): Promise<JsonObject> {
    const bare = { ...step, input: undefined, output: undefined, failure: undefined, attempts: [] };
    const json = render("Step", Step, bare);
    const origin = { namespace, method: step.method };
    await this.add(json, "input", step.input, { ...origin, side: "input" });
    await this.add(json, "output", step.output, { ...origin, side: "output" });
    await this.addFailure(json, step.failure, origin);
    const attempts: JsonObject[] = [];
    for (const attempt of step.attempts) {
      const one = render("Attempt", Attempt, { ...attempt, failure: undefined });
      await this.addFailure(one, attempt.failure, origin);
      attempts.push(one);
    }
    json["attempts"] = attempts;
    return json;
  }

  private async add(json: JsonObject, name: string, payload: Payload | undefined, origin: Origin): Promise<void> {
    if (payload === undefined) return;
    if (payload.sizeBytes > BigInt(this.bytesLeft)) {
      json[name] = omitted(payload, "too large for this view");
      return;
    }
    try {
      json[name] = await this.value(payload, origin);
      this.bytesLeft -= Number(payload.sizeBytes);
    } catch (cause) {
      if (this.options.signal.aborted) throw cause;
      json[name] = omitted(payload, cause instanceof Error ? cause.message : "unreadable");
    }
  }

  private async addFailure(
    json: JsonObject,
    failure: Failure | undefined,
    origin: { namespace: string; method: string; contract?: string },
  ): Promise<void> {
    if (failure === undefined) return;
    const hasDetails = failure.details.length > 0 || failure.cause !== undefined;
    const contract = hasDetails ? await this.contractFor(origin).catch(() => undefined) : undefined;
    json["failure"] = failureToJson(failure, contract?.registry);
  }

  private contractOf(payload: Payload, origin: Origin): Promise<Contract> {
    return this.contractFor({ ...origin, ...(payload.contract === "" ? {} : { contract: payload.contract }) });
  }

  private contractFor(origin: { namespace: string; method: string; contract?: string }): Promise<Contract> {
    const { namespace, method, contract } = origin;
    return contract !== undefined && contract !== ""
      ? this.contracts.revision(namespace, contract, this.options)
      : this.contracts.current(namespace, method, this.options);
  }
}

function omitted(payload: Payload, why: string): JsonObject {
  return {
    "@payload": {
      contract: payload.contract,
      sizeBytes: String(payload.sizeBytes),
      ...(payload.data?.$case === "reference" ? { reference: payload.data.value } : {}),
      omitted: why,
    },
  };
}
