import { Command } from "@commander-js/extra-typings";
import { openOutput } from "../session.js";

/** `taskmesh settings`: every environment variable of every process. */
export const settings = () =>
  new Command("settings")
    .description("list the environment variables of every process, with form, unit and default")
    .action(async (_options, command) => {
      const out = openOutput(command);
      const { settingsHelp, settingsTables } = await import("@taskmesh/runtime");
      const tables = Object.entries(settingsTables);
      out.document(
        tables.map(([process, table]) => ({
          process,
          settings: Object.values(table).map(({ variable, form, fallback, required, secret, doc }) => ({
            variable,
            form,
            default: fallback ?? null,
            required,
            file: secret ? `${variable}_FILE` : null,
            doc,
          })),
        })),
      );
      for (const [process, table] of tables) out.line(`${out.colors.bold(process)}\n${settingsHelp(table)}\n`);
    });
