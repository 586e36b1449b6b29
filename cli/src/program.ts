/** The command tree. Commands import what is heavy (the mesh, the generators) only when they run. */
import { readFileSync } from "node:fs";
import { Command } from "@commander-js/extra-typings";
import { actionsDescribe } from "./commands/actions-describe.js";
import { actionsList } from "./commands/actions-list.js";
import {
  assignmentsClaim,
  assignmentsComment,
  assignmentsComplete,
  assignmentsList,
  assignmentsRelease,
  assignmentsShow,
} from "./commands/assignments.js";
import { bulkShow, bulkStart, runsBroken } from "./commands/bulk.js";
import { chainsApply } from "./commands/chains-apply.js";
import { chainsList } from "./commands/chains-list.js";
import { chainsShow } from "./commands/chains-show.js";
import { chainsValidate } from "./commands/chains-validate.js";
import { completion } from "./commands/completion.js";
import { contractsAllow, contractsCheck, contractsGate, contractsUses } from "./commands/contracts.js";
import { dev } from "./commands/dev.js";
import { doctor } from "./commands/doctor.js";
import { gen } from "./commands/gen.js";
import { init } from "./commands/init.js";
import { mesh } from "./commands/mesh.js";
import { namespaceSet, namespaceShow } from "./commands/namespace.js";
import { contractsCanary, contractsUpcast } from "./commands/rollout.js";
import { runsCallback } from "./commands/runs-callback.js";
import { runsCancel } from "./commands/runs-cancel.js";
import { runsItems } from "./commands/runs-items.js";
import { runsLaunch } from "./commands/runs-launch.js";
import { runsList } from "./commands/runs-list.js";
import { runsLogs } from "./commands/runs-logs.js";
import { runsPause, runsResume, runsRetry, runsSkip, runsTerminate, runsUpdate } from "./commands/runs-operate.js";
import { runsResult } from "./commands/runs-result.js";
import { runsShow } from "./commands/runs-show.js";
import { runsSignal } from "./commands/runs-signal.js";
import { runsStart } from "./commands/runs-start.js";
import { runsClone, runsRestart } from "./commands/runs-successors.js";
import { runsWatch } from "./commands/runs-watch.js";
import { sdkGenerate } from "./commands/sdk-generate.js";
import { settings } from "./commands/settings.js";
import { workersList } from "./commands/workers-list.js";
import { defaultUrl } from "./config.js";

const version = (): string => {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
};

const exitCodes = `
Exit codes:
  0  done; the run succeeded
  1  the run ended badly; a chain, a contract or a deployment has problems
  2  the command line, or a file named on it, can't be used
  3  the mesh can't be reached
  4  no such run, chain, action or namespace
  5  the mesh refused

First steps:
  taskmesh init           write an example: contract, worker, test, chain
  taskmesh dev            run a mesh on this machine
  taskmesh settings       list the environment variables
  taskmesh gen            make types and descriptors of your .proto files`;

/** The whole program, ready to parse. It throws CommanderError instead of ending the process. */
export function createProgram() {
  const program = new Command("taskmesh")
    .description("Typed actions, chains of them, and their runs")
    // Commands have a --version of their own; run-program.ts takes that of the program itself.
    .version(version(), "-V", "print the version, as --version alone does")
    .option("--url <url>", `REST address of the mesh; TASKMESH_URL; default ${defaultUrl}`)
    .option("--namespace <name>", "namespace to work in; TASKMESH_NAMESPACE; default: the credential's")
    .option("--token <token>", "bearer token; TASKMESH_TOKEN (better: other programs can see options)")
    .option("--token-file <path>", "file that holds the bearer token; TASKMESH_TOKEN_FILE")
    .option("--tls-ca <path>", "PEM of the authority that signed the mesh's certificate; TASKMESH_TLS_CA")
    .option("--tls-cert <path>", "PEM of the client certificate; TASKMESH_TLS_CERT")
    .option("--tls-key <path>", "PEM of its key; TASKMESH_TLS_KEY")
    .option("--json", "print JSON for programs: one document, or one a line where things are watched")
    .addHelpText("after", exitCodes)
    .showHelpAfterError("(--help shows what is possible)")
    .showSuggestionAfterError();
  const group = (name: string, about: string) => program.command(name).description(about);
  group("actions", "the catalogue of actions").addCommand(actionsList()).addCommand(actionsDescribe());
  group("workers", "the live workers").addCommand(workersList());
  group("namespace", "settings of the namespace").addCommand(namespaceShow()).addCommand(namespaceSet());
  group("chains", "chains of actions")
    .addCommand(chainsValidate())
    .addCommand(chainsApply())
    .addCommand(chainsList())
    .addCommand(chainsShow());
  group("contracts", "how contracts may change, and who uses them")
    .addCommand(contractsCheck())
    .addCommand(contractsUses())
    .addCommand(contractsGate())
    .addCommand(contractsAllow())
    .addCommand(contractsCanary())
    .addCommand(contractsUpcast());
  group("sdk", "clients of the mesh's contracts").addCommand(sdkGenerate());
  group("runs", "runs of actions and chains")
    .addCommand(runsStart())
    .addCommand(runsLaunch())
    .addCommand(runsShow())
    .addCommand(runsWatch())
    .addCommand(runsList())
    .addCommand(runsCancel())
    .addCommand(runsResult())
    .addCommand(runsItems())
    .addCommand(runsLogs())
    .addCommand(runsSignal())
    .addCommand(runsCallback())
    .addCommand(runsPause())
    .addCommand(runsResume())
    .addCommand(runsTerminate())
    .addCommand(runsUpdate())
    .addCommand(runsRetry())
    .addCommand(runsSkip())
    .addCommand(runsRestart())
    .addCommand(runsClone())
    .addCommand(runsBroken());
  group("bulk", "one thing done to many runs").addCommand(bulkStart()).addCommand(bulkShow());
  group("assignments", "what waiting steps ask of people")
    .addCommand(assignmentsList())
    .addCommand(assignmentsShow())
    .addCommand(assignmentsClaim())
    .addCommand(assignmentsRelease())
    .addCommand(assignmentsComment())
    .addCommand(assignmentsComplete());
  program
    .addCommand(init())
    .addCommand(gen())
    .addCommand(dev())
    .addCommand(mesh())
    .addCommand(doctor())
    .addCommand(settings())
    .addCommand(completion());
  // Errors leave by exceptions everywhere, so that main.ts alone decides the exit code.
  const quiet = (command: { exitOverride(): unknown; commands: readonly unknown[] }) => {
    command.exitOverride();
    for (const child of command.commands) quiet(child as typeof command);
  };
  quiet(program);
  return program;
}
