/**
 * What a case works with: a namespace of a real coordinator, the tap in front of it, the worker's process behind the tap, and the rules.
 *
 * A rule that does not hold is a `Breach`; everything that a case waits for has a bound, and names what did not come.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type GetResultResponse,
  type Payload,
  type RelayStart,
  type Run,
  RunStatus,
  StartRunRequest,
  type Worker,
} from "@taskmesh/proto";
import { unaryCall } from "@taskmesh/runtime";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { ServerProcess } from "../fixtures/process.js";
import { Tap } from "./tap.js";
import type { Seen } from "./tape.js";
import type { Breach } from "./watch.js";
import {
  compileContract,
  type Fields,
  methodOf,
  type Rpc,
  serviceName,
  type WorkerContract,
} from "./worker-contract.js";

/** Slots that the worker under test is told to offer. */
export const slots = 4;
/** Time for whatever a case waits for, unless asked otherwise. */
const patienceMsDefault = 30_000;
/** Time for a worker to start and register: it may have to load an interpreter. */
const startMs = 60_000;

/** The mesh that workers under test join: the times are short, so that what they are about comes soon. */
export const startKitMesh = (namespaces: readonly string[]): Promise<InProcessMesh> =>
  startInProcessMesh({
    on: "embedded",
    namespaces,
    ackWaitMs: 1_200,
    intervals: {
      beatMs: 400,
      sessionTimeoutMs: 6_000,
      nonceMaxAgeMs: 10_000,
      probeMs: 400,
      unlistedMs: 2_000,
      bindingScanMs: 400,
      flushMs: 100,
      epochPollMs: 200,
      lapseScanMs: 300,
      orphanScanMs: 1_000,
      graceMs: 500,
    },
  });

/** A rule that does not hold, as an error that ends its case. */
export class RuleBroken extends Error {
  override readonly name = "RuleBroken";
  constructor(
    readonly breach: Breach,
    options?: ErrorOptions,
  ) {
    super(breach.message, options);
  }
}

/** Ends the case unless `holds`. */
export function must(section: string, holds: boolean, message: string): asserts holds {
  if (!holds) throw new RuleBroken({ section, message });
}

export interface KitOptions {
  /** What starts the worker: one command for /bin/sh. */
  command: string;
  /** Where it is started. */
  cwd: string;
  /** The environment that the worker inherits. */
  env: NodeJS.ProcessEnv;
  mesh: InProcessMesh;
  /** Of the mesh, and of nobody else. */
  namespace: string;
  /** Time for whatever a case waits for; default 30 s. */
  patienceMs?: number;
}

export class Kit {
  readonly tap: Tap;
  readonly namespace: string;
  readonly #mesh: InProcessMesh;
  readonly #options: KitOptions;
  readonly #folder = mkdtempSync(join(tmpdir(), "taskmesh-conformance-"));
  readonly #contract: WorkerContract = compileContract();
  #process: ServerProcess | undefined;
  readonly #started: string[] = [];
  #gates = 0;

  constructor(options: KitOptions) {
    this.#options = options;
    this.#mesh = options.mesh;
    this.namespace = options.namespace;
    this.tap = new Tap(options.mesh.address);
  }

  get tape(): Tap["tape"] {
    return this.tap.tape;
  }

  /** The worker's last output. */
  get output(): string {
    return this.#process?.output ?? "";
  }

  get worker(): ServerProcess {
    if (!this.#process) throw new Error("no worker was started");
    return this.#process;
  }

  async open(): Promise<void> {
    await this.tap.listen();
    writeFileSync(join(this.#folder, "contract.binpb"), this.#contract.descriptorSet);
  }

  async close(): Promise<void> {
    this.#process?.signal("SIGKILL");
    await this.#process?.exited();
    this.tap.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Starts the worker unless it runs, and waits until it can be given work. */
  async ensureWorker(): Promise<void> {
    if (this.#process && !this.#process.ended) return;
    this.tap.watch.restart();
    this.#process = new ServerProcess("/bin/sh", ["-c", `exec ${this.#options.command}`], {
      cwd: this.#options.cwd,
      env: {
        ...this.#options.env,
        TASKMESH_ADDRESS: this.tap.address,
        TASKMESH_NAMESPACE: this.namespace,
        TASKMESH_SLOTS: String(slots),
        CONFORMANCE_DESCRIPTORS: join(this.#folder, "contract.binpb"),
      },
    });
    const since = this.tape.now;
    await this.until(
      "3",
      "a registration that holds",
      () => this.tape.registered.some(({ order }) => order > since),
      startMs,
    );
    await this.ready(since);
  }

  /** Waits until work can reach the worker over the newest session and stream. */
  async ready(since = 0): Promise<void> {
    await this.until("5.2", "a Relay stream with credit for every slot", () => {
      const stream = this.tap.relayStream;
      return (
        stream > 0 &&
        this.tape.opens.some((open) => open.stream === stream && open.order > since) &&
        this.room().allowed > 0
      );
    });
  }

  /** Credit of the present relay stream. */
  room(): { allowed: number; inHand: number; credited: boolean } {
    return this.tap.watch.room(this.tap.relayStream, serviceName);
  }

  /** Waits until the worker has nothing in hand and every slot is allowed again. */
  async quiet(): Promise<void> {
    const what = (): string => {
      const { allowed, inHand } = this.room();
      return `every slot to be allowed again once nothing is in hand (${allowed} are allowed, ${inHand} in hand)`;
    };
    await this.until("5.3", what, () => {
      const { allowed, inHand } = this.room();
      return allowed === slots && inHand === 0;
    });
  }

  /** Waits for what a section asks for. */
  async until(
    section: string,
    what: string | (() => string),
    condition: () => boolean | Promise<boolean>,
    ms = this.#options.patienceMs ?? patienceMsDefault,
  ): Promise<void> {
    const deadline = performance.now() + ms;
    while (!(await condition())) {
      if (this.#process?.ended && section !== "11.4") {
        const message = `the worker's process ended (exit code ${this.#process.exitCode ?? "none"}) instead of: ${typeof what === "string" ? what : what()}`;
        throw new RuleBroken({ section, message });
      }
      if (performance.now() > deadline)
        throw new RuleBroken({
          section,
          message: `waited ${Math.round(ms / 1000)} s in vain for ${typeof what === "string" ? what : what()}`,
        });
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** A file that is not there, and what makes it. */
  gate(): { path: string; open(): void } {
    this.#gates += 1;
    const path = join(this.#folder, `gate-${this.#gates}`);
    return { path, open: () => writeFileSync(path, "") };
  }

  /** Starts a run of a method of the contract, and answers its id. */
  async start(rpc: Rpc, fields: Fields): Promise<string> {
    const bytes = this.#contract.encodeRequest(rpc, fields);
    const data =
      bytes.length <= 128 * 1024
        ? { data: { $case: "inline" as const, value: bytes }, sizeBytes: BigInt(bytes.length) }
        : await this.#put(bytes);
    const { runs } = this.#mesh;
    const request = StartRunRequest.fromPartial({
      namespace: this.namespace,
      method: methodOf(rpc),
      input: { $case: "payload", value: data },
    });
    const { runId } = await unaryCall(runs, runs.startRun, request);
    this.#started.push(runId);
    return runId;
  }

  /** Waits until the first start of a run has come, and answers it. */
  async delivered(runId: string, nth = 0): Promise<Seen<RelayStart>> {
    await this.until("5.2", "credit, so that a start can be sent", () => this.tape.startsOf(runId).length > nth);
    return this.tape.startsOf(runId)[nth]!;
  }

  /** Waits until an attempt is listed and bound. */
  async bound(section: string, lease: string): Promise<void> {
    await this.until(section, `a beat that lists the running attempt (lease ${lease})`, () => this.tape.listed(lease));
    await this.until(section, "the attempt to be bound", () => this.tape.bound(lease));
  }

  /** Waits for the end of a run. */
  async result(section: string, runId: string): Promise<GetResultResponse> {
    const { runs } = this.#mesh;
    let result: GetResultResponse | undefined;
    await this.until(section, `the end of run ${runId}`, async () => {
      const request = { namespace: this.namespace, runId, wait: { seconds: 1n, nanos: 0 } };
      result = await unaryCall(runs, runs.getResult, request, { deadlineMs: 20_000 });
      return result.status !== RunStatus.RUN_STATUS_RUNNING;
    });
    return result!;
  }

  /** Waits for the success of a run and answers its output. */
  async outputOf(section: string, rpc: Rpc, runId: string): Promise<Fields> {
    const { status, failure, output } = await this.result(section, runId);
    const why = failure ? `: ${failure.reason} ${failure.message}` : "";
    must(section, status === RunStatus.RUN_STATUS_SUCCEEDED, `the run ended ${RunStatus[status]}${why}`);
    return this.#contract.decodeResponse(rpc, await this.#bytesOf(output));
  }

  /** Forgets the runs that a case started; those of one that failed are ended, since they would hold slots that later cases need. */
  async clear(failed: boolean): Promise<void> {
    const started = this.#started.splice(0);
    if (failed) await Promise.all(started.map((runId) => this.terminate(runId).catch(() => {})));
  }

  /** Starts and finishes a call. */
  async call(section: string, rpc: Rpc, fields: Fields): Promise<Fields> {
    return this.outputOf(section, rpc, await this.start(rpc, fields));
  }

  async cancel(runId: string): Promise<void> {
    const { runs } = this.#mesh;
    await unaryCall(runs, runs.cancelRun, {
      namespace: this.namespace,
      runId,
      reason: "the kit cancels it",
      actor: "",
    });
  }

  async terminate(runId: string): Promise<void> {
    const { runs } = this.#mesh;
    await unaryCall(runs, runs.terminateRun, {
      namespace: this.namespace,
      runId,
      reason: "the kit ends it",
      actor: "",
    });
  }

  async run(
    runId: string,
  ): Promise<{ run: Run; progress: number; message: string; attempt: number; lostAttempts: number }> {
    const { runs } = this.#mesh;
    const { run, steps } = await unaryCall(runs, runs.getRun, { namespace: this.namespace, runId, omitPayloads: true });
    const [step] = steps;
    const { percent = 0, message = "" } = step?.progress ?? {};
    return {
      run: run!,
      progress: percent,
      message,
      attempt: step?.attempt ?? 0,
      lostAttempts: step?.lostAttempts ?? 0,
    };
  }

  /** Live workers of the namespace. */
  async workers(): Promise<Worker[]> {
    const { registry } = this.#mesh;
    return (await unaryCall(registry, registry.listWorkers, { namespace: this.namespace })).workers;
  }

  #put(bytes: Buffer): Promise<Payload> {
    const { payloads } = this.#mesh;
    return new Promise((resolve, reject) => {
      const call = payloads.putPayload((error, response) => (error ? reject(error) : resolve(response.payload!)));
      for (let at = 0; at < bytes.length; at += 1 << 20)
        call.write({ namespace: at === 0 ? this.namespace : "", chunk: bytes.subarray(at, at + (1 << 20)) });
      call.end();
    });
  }

  async #bytesOf(payload: Payload | undefined): Promise<Uint8Array> {
    if (payload?.data?.$case !== "reference") return payload?.data?.value ?? new Uint8Array();
    const { payloads } = this.#mesh;
    const chunks: Buffer[] = [];
    for await (const { chunk } of payloads.getPayload({ namespace: this.namespace, reference: payload.data.value }))
      chunks.push(chunk as Buffer);
    return Buffer.concat(chunks);
  }
}
