import { Command } from "@commander-js/extra-typings";
import { plain } from "../output.js";
import { openSession } from "../session.js";

/** `taskmesh sdk generate`: a client project for contracts of the mesh. */
export const sdkGenerate = () =>
  new Command("generate")
    .description("write a client of live contracts: their .proto files, stubs, a README and a call that runs")
    .argument("[contracts...]", "methods, services or packages; default: all but the mesh's own")
    .requiredOption("--lang <language>", "ts, python, go, java, ruby, php, csharp or cpp")
    .option("--out <folder>", "what is written; replaced as a whole", "mesh-client")
    .action(async (contracts, options, command) => {
      const { api, out } = openSession(command);
      const { generateSdk } = await import("../sdk/generate-sdk.js");
      const result = await generateSdk(api, { language: options.lang, wanted: contracts, out: options.out });
      out.document(result);
      const count = result.methods.length;
      const about = `${count} contract${count === 1 ? "" : "s"}`;
      out.line(
        `${out.colors.green("wrote")} ${result.files.length} files in ${plain(result.out)}: ${about}, ${result.language}`,
      );
      if (result.missing.length > 0) {
        out.note(out.colors.yellow("The stubs are not generated yet: this machine lacks what makes them. Install:"));
        for (const line of result.missing) out.note(`  ${line}`);
      }
      out.line(`\nNext, in ${plain(result.out)}:`);
      for (const line of result.next) out.line(`  ${plain(line)}`);
    });
