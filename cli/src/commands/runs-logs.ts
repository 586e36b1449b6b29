import { Command } from "@commander-js/extra-typings";
import { objects, text } from "../json.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";

const levels: Record<string, string> = { DEBUG: "debug", INFO: "info ", WARN: "warn ", ERROR: "error" };

/** `taskmesh runs logs`: what the handlers of a run wrote, by attempt. */
export const runsLogs = () =>
  new Command("logs")
    .description("print the log lines that the handlers of a run wrote")
    .argument("<run-id>")
    .option("--step <id>", "only this step")
    .action(async (runId, options, command) => {
      const { api, out } = openSession(command);
      const path = `/api/v1/runs/${encodeURIComponent(runId)}/logs`;
      const answer = await api.call("GET", path, { query: { stepId: options.step } });
      out.document(answer);
      if (out.json) return;
      let printed = 0;
      for (const attempt of objects(answer.attempts)) {
        const origin = `${plain(text(attempt.stepId))}#${String(attempt.attempt ?? 1)}`;
        for (const line of objects(attempt.lines)) {
          const level = levels[text(line.level).replace("LOG_LEVEL_", "")] ?? "     ";
          const fields = plain(text(line.fieldsJson));
          const head = out.colors.dim(`${plain(text(line.at))}  ${origin}`);
          out.line(
            `${head}  ${level}  ${plain(text(line.message))}${fields === "" ? "" : `  ${out.colors.dim(fields)}`}`,
          );
          printed += 1;
        }
      }
      if (printed === 0) out.note("No log lines: the handlers wrote none, or no attempt has ended yet.");
    });
