import { Command } from "@commander-js/extra-typings";
import { openOutput } from "../session.js";

/** `taskmesh gen`: types and descriptors of one's own contracts. */
export const gen = () =>
  new Command("gen")
    .description("make TypeScript and embedded descriptors of the .proto files (proto/, else this folder)")
    .argument("[folder]", "where the project is", ".")
    .option("--proto <folder>", "where the .proto files are; imports are relative to it")
    .option("--out <folder>", "what is written; replaced as a whole", "gen")
    .action(async (folder, options, command) => {
      const out = openOutput(command);
      const { generate } = await import("../generate.js");
      const result = await generate({ folder, proto: options.proto, out: options.out });
      out.document(result);
      out.line(
        `${out.colors.green("wrote")} ${result.files.length} files in ${result.out}: ${result.services.join(", ")}`,
      );
    });
