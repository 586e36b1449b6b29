import { Command } from "@commander-js/extra-typings";
import type { Finding } from "@taskmesh/runtime";
import { childEnvironment } from "../config.js";
import { CliError, exitCode } from "../exit.js";
import { type Colors, plain } from "../output.js";
import { openOutput } from "../session.js";

function levelOf({ level }: Finding, colors: Colors): string {
  if (level === "ok") return colors.green("ok");
  return level === "warn" ? colors.yellow("warn") : colors.red("FAIL");
}

/** `taskmesh doctor`: looks at a deployment and says what to fix. */
export const doctor = () =>
  new Command("doctor")
    .description("look at the servers that DATABASE_URL and NATS_URL name, and say what to fix; changes nothing")
    .option("--strict", "end with 1 for warnings too")
    .action(async ({ strict }, command) => {
      const out = openOutput(command);
      const { diagnose } = await import("../doctor.js");
      const findings = await diagnose(childEnvironment());
      const count = (level: Finding["level"]): number => findings.filter((one) => one.level === level).length;
      const [failures, warnings] = [count("fail"), count("warn")];
      out.document({ ok: failures === 0, failures, warnings, findings });
      if (!out.json) {
        const rows = findings.map((one) => [levelOf(one, out.colors), one.area, plain(one.check), plain(one.found)]);
        out.table(["", "AREA", "CHECK", "FOUND"], rows);
        for (const one of findings) {
          if (one.fix)
            out.line(
              `\n${levelOf(one, out.colors)} ${one.area}, ${plain(one.check)}: ${plain(one.found)}\n  ${plain(one.fix)}`,
            );
        }
        out.line(`\n${findings.length} checks, ${failures} failed, ${warnings} warnings`);
      }
      if (failures > 0 || (strict && warnings > 0)) {
        throw new CliError(exitCode.bad, failures > 0 ? "the deployment has faults" : "the deployment has warnings");
      }
    });
