import { writeFileSync } from "node:fs";
import { Command } from "@commander-js/extra-typings";
import { methodPath } from "../api.js";
import { CliError, exitCode, usageError } from "../exit.js";
import { object, objects, text } from "../json.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";
import { showAgo } from "../show.js";

/** `taskmesh contracts check`: what would happen if these contracts were registered now. */
export const contractsCheck = () =>
  new Command("check")
    .description(
      "compare the .proto files of a folder with what the mesh has registered; exit code 1 if they would break it",
    )
    .argument("[folder]", "where the .proto files are: proto/ in it, else itself", ".")
    .option("--junit <file>", "also write the report as JUnit XML; - for standard output instead of the text")
    .option("--strict", "break on every violation, even where the mesh would allow it")
    .action(async (folder, options, command) => {
      const { api, out } = openSession(command);
      const { compile } = await import("../generate.js");
      const { hintOf, isBad, junitReport, textReport } = await import("../contract-report.js");
      const { descriptorSet, root } = await compile(folder);
      const body = { descriptorSet: Buffer.from(descriptorSet).toString("base64") };
      const answer = await api.call("POST", "/api/v1/contracts/check", { body });
      const judgements = objects(answer.judgements);
      const strict = options.strict === true;
      const bad = judgements.filter((judgement) => isBad(judgement, strict));
      out.document({ ...answer, root, bad: bad.length });
      const quiet = options.junit === "-";
      if (options.junit !== undefined) {
        const report = junitReport(judgements, root, strict);
        if (quiet) out.raw(report);
        else writeReport(options.junit, report);
      }
      if (!quiet) for (const line of textReport(judgements, root, strict, out.colors)) out.line(line);
      if (bad.length === 0) return;
      const hint = hintOf(judgements, strict);
      const message = `${bad.length} of ${judgements.length} contracts break what is registered`;
      throw new CliError(exitCode.bad, message, hint === undefined ? {} : { hint });
    });

function writeReport(path: string, report: string): void {
  try {
    writeFileSync(path, report);
  } catch (error) {
    throw usageError(`can't write ${path}: ${(error as Error).message}`);
  }
}

/** `taskmesh contracts uses`: which chains read, set or pass on a field. */
export const contractsUses = () =>
  new Command("uses")
    .description("say which chains read a field, set it, or pass on a message that holds it")
    .argument("<field>", "shop.v1.Order.total, Order.total, or a message and all its fields: Order")
    .action(async (field, _options, command) => {
      const { api, out } = openSession(command);
      const { describeUse } = await import("../contract-report.js");
      const answer = await api.call("GET", "/api/v1/contracts/uses", { query: { field } });
      out.document(answer);
      if (out.json) return;
      const uses = objects(answer.uses);
      if (uses.length === 0) return out.note(`None of ${String(answer.chains ?? 0)} chains uses ${plain(field)}.`);
      let shown = "";
      for (const use of uses) {
        const chain = plain(`${text(use.chain)} version ${String(use.version ?? 0)}`);
        if (chain !== shown) out.line(out.colors.bold(chain));
        shown = chain;
        const step = text(use.stepId) === "" ? "" : `step ${plain(text(use.stepId))} `;
        out.line(`  ${step}${describeUse(use)}`);
      }
      if (answer.truncated === true) out.note("There are more uses than these.");
    });

const bareMode = (mode: unknown): string =>
  text(mode as string)
    .replace("GATE_MODE_", "")
    .toLowerCase();

/** `taskmesh contracts gate`: shows or sets what happens to contracts that break their predecessors. */
export const contractsGate = () =>
  new Command("gate")
    .description("show what happens to contracts that break their predecessors, or set it: refuse, quarantine or allow")
    .argument("[mode]", "refuse, quarantine or allow")
    .option("--reason <text>", "why; recorded, and needed for allow")
    .action(async (mode, options, command) => {
      const { api, out } = openSession(command);
      if (mode !== undefined) {
        if (!["refuse", "quarantine", "allow"].includes(mode)) {
          throw usageError(`"${mode}" is no mode of the gate`, "Say refuse, quarantine or allow.");
        }
        const body = { mode: `GATE_MODE_${mode.toUpperCase()}`, reason: options.reason ?? "" };
        await api.call("PUT", "/api/v1/contracts/gate", { body });
      }
      const answer = await api.call("GET", "/api/v1/contracts/gate");
      out.document(answer);
      if (out.json) return;
      const gate = object(answer.gate);
      out.line(`${out.colors.bold(bareMode(gate.mode))}  ${plain(text(gate.reason))}`);
      const decisions = objects(answer.decisions);
      if (decisions.length === 0) return;
      out.line();
      out.table(
        ["DECIDED", "METHOD", "CONTRACT", "VERDICT", "REASON"],
        decisions.map((one) => [
          showAgo(one.decidedAt, Date.now()),
          plain(text(one.method)),
          plain(text(one.contract)).slice(0, 12),
          text(one.verdict).replace("CONTRACT_VERDICT_", "").toLowerCase(),
          plain(text(one.reason)),
        ]),
      );
    });

/** `taskmesh contracts allow`: lets one revision pass. */
export const contractsAllow = () =>
  new Command("allow")
    .description("let one revision of a contract pass the gate, before it is registered or out of quarantine")
    .argument("<method>", "full method name, acme.pages.v1.PageActions/Score")
    .argument("<contract>", "its fingerprint, as `contracts check` and the refusal name it")
    .requiredOption("--reason <text>", "why; recorded")
    .action(async (method, contract, options, command) => {
      methodPath(method);
      const { api, out } = openSession(command);
      const answer = await api.call("POST", "/api/v1/contracts/allow", {
        body: { method, contract, reason: options.reason },
      });
      out.document(answer);
      out.line(`${out.colors.green("allowed")} ${plain(method)} ${plain(contract).slice(0, 12)}`);
    });
