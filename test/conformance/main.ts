/**
 * `npm run conformance -- --worker "<command>"`: tells whether a worker, in whatever language, keeps the worker protocol.
 *
 * Exit code 0: it does; 1: it does not; 2: the command line can't be used.
 */
import { parseArgs } from "node:util";
import { conformanceCases } from "./cases/index.js";
import { startKitMesh } from "./kit.js";
import { readSections, reportCase, reportEnd, reportHead } from "./report.js";
import { runCases } from "./run-cases.js";

const usage = `usage: npm run conformance -- --worker "<command>" [--only <text>] [--cwd <folder>] [--list]

  --worker   starts the worker under test: one command for /bin/sh
  --only     runs the cases whose name or section has this text
  --cwd      where the worker is started; default: where npm was called
  --list     names the cases and starts nothing

What the worker has to implement: test/conformance/README.md. What the cases are about: docs/worker-protocol.md.
`;

interface Arguments {
  worker?: string | undefined;
  only?: string | undefined;
  cwd?: string | undefined;
  list?: boolean | undefined;
}

function readArguments(): Arguments | undefined {
  const options = {
    worker: { type: "string" },
    only: { type: "string" },
    cwd: { type: "string" },
    list: { type: "boolean" },
  } as const;
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n`);
    return undefined;
  }
}

async function main(): Promise<number> {
  const given = readArguments();
  const wanted = conformanceCases.filter(
    ({ name, section }) => given?.only === undefined || name.includes(given.only) || section === given.only,
  );
  if (given?.list) {
    for (const { name, section } of wanted) process.stdout.write(`§${section}  ${name}\n`);
    return 0;
  }
  if (given?.worker === undefined || given.worker.trim() === "" || wanted.length === 0) {
    process.stderr.write(wanted.length === 0 ? `no case has "${given?.only}" in its name\n` : usage);
    return 2;
  }
  const titles = readSections();
  const namespace = "conformance";
  const mesh = await startKitMesh([namespace]);
  try {
    const cwd = given.cwd ?? process.env["INIT_CWD"] ?? process.cwd();
    process.stdout.write(reportHead(wanted.length));
    const options = { command: given.worker, cwd, env: process.env, mesh, namespace };
    const verdicts = await runCases(options, wanted, (verdict, index) => {
      process.stdout.write(reportCase(verdict, index, titles));
    });
    process.stdout.write(reportEnd(verdicts));
    return verdicts.every(({ breaches }) => breaches.length === 0) ? 0 : 1;
  } finally {
    await mesh.stop();
  }
}

// Whatever a broken worker leaves open must not keep the kit.
process.exit(await main());
