import { Command } from "@commander-js/extra-typings";
import { CliError } from "../exit.js";
import { object, objects, text } from "../json.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";

/** `taskmesh chains validate`: checks a chain against the registered contracts, and stores nothing. */
export const chainsValidate = () =>
  new Command("validate")
    .description("check a chain against the registered actions, without storing it")
    .argument(
      "<file>",
      "YAML or JSON, - reads stdin; or a TypeScript or JavaScript module, chain.ts or chain.ts#export",
    )
    .action(async (path, _options, command) => {
      const { api, out } = openSession(command);
      const { readChain } = await import("../chain-module.js");
      const { chainError, describeProblem, placeProblems, problemsOf } = await import("../chain-problems.js");
      const file = await readChain(path);
      const answer = await api.call("POST", "/api/v1/chains/validate", { body: file.spec }).catch((error: unknown) => {
        const problems = error instanceof CliError ? problemsOf(error) : undefined;
        throw problems ? chainError(file, problems) : error;
      });
      const problems = objects(answer.problems);
      const warnings = placeProblems(file, objects(answer.warnings));
      out.document({ file: file.name, problems: placeProblems(file, problems), warnings });
      for (const warning of warnings) out.note(`${out.colors.yellow("warning")} ${describeProblem(file, warning)}`);
      if (problems.length > 0) throw chainError(file, problems);
      out.line(`${file.name}: ${plain(text(object(file.spec.contract).name))} is valid`);
    });
