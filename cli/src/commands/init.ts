import { Command } from "@commander-js/extra-typings";
import { scaffold } from "../scaffold.js";
import { openOutput } from "../session.js";

/** `taskmesh init`: an example to change into one's own. */
export const init = () =>
  new Command("init")
    .description("write an example: a contract, a worker, its test and a chain")
    .argument("[folder]", "where; made if it is missing", ".")
    .action((folder, _options, command) => {
      const out = openOutput(command);
      const result = scaffold(folder);
      out.document(result);
      for (const name of result.written) out.line(`${out.colors.green("wrote")} ${name}`);
      for (const name of result.kept) out.line(`${out.colors.dim("kept ")} ${name}`);
      for (const warning of result.warnings) out.note(out.colors.yellow(warning));
      out.line(`
Next:${folder === "." ? "" : `\n  cd ${folder}`}
  npx taskmesh dev                       a mesh on this machine (leave it running)
  npx taskmesh gen && npx tsx worker.ts  in a second terminal: types from pages.proto, then the worker
  npx tsx --test worker.test.ts          the worker's own test, without a mesh
  npx taskmesh chains apply chain.yaml   in a third: check and store the chain`);
    });
