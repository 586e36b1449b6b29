import { Command } from "@commander-js/extra-typings";
import { CliError } from "../exit.js";
import { object, objects, text } from "../json.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";

/** `taskmesh chains apply`: checks a chain and stores it as its next version. */
export const chainsApply = () =>
  new Command("apply")
    .description("check a chain and store it; new runs use it from then on")
    .argument(
      "<file>",
      "YAML or JSON, - reads stdin; or a TypeScript or JavaScript module, chain.ts or chain.ts#export",
    )
    .option("--require-live-workers", "refuse a chain with steps that no live worker can serve, instead of warning")
    .action(async (path, options, command) => {
      const { api, out } = openSession(command);
      const { readChain } = await import("../chain-module.js");
      const { chainError, describeProblem, placeProblems, problemsOf } = await import("../chain-problems.js");
      const file = await readChain(path);
      const query = { requireLiveWorkers: options.requireLiveWorkers ? true : undefined };
      const answer = await api.call("POST", "/api/v1/chains", { body: file.spec, query }).catch((error: unknown) => {
        const problems = error instanceof CliError ? problemsOf(error) : undefined;
        throw problems ? chainError(file, problems) : error;
      });
      const warnings = placeProblems(file, objects(answer.warnings));
      out.document({ ...answer, warnings });
      for (const warning of warnings) out.note(`${out.colors.yellow("warning")} ${describeProblem(file, warning)}`);
      const chain = object(answer.chain);
      const name = plain(text(chain.name));
      const version = String(chain.version ?? "");
      out.line(answer.created === true ? `stored ${name} version ${version}` : `unchanged: ${name} version ${version}`);
      if (!out.json && out.terminal.live) out.note(`Run it: taskmesh runs start ${name} --input '{...}' --watch`);
    });
