/**
 * One process per data folder, and never a lock that outlives its process.
 *
 * A lock is a file `lock.<n>` that names its holder by process id and start time, so that a recycled id is not taken for the holder.
 * Held is the highest `n` whose holder lives. Who finds the highest one dead makes the next one:
 *
 * L1. `lock.<n>` appears whole (written beside, then linked) and by one process only (linking fails if it exists).
 * L2. Only the holder of a higher number deletes a lower one, so the highest always stays, also after a clean end.
 * L3. Who made `lock.<n>` and then sees a higher one has lost: it looked at an old folder. It takes its file away and looks again.
 *
 * L2 and L3 together: a number can be made a second time only after a higher one exists, and then L3 finds that one.
 */
import { execFileSync } from "node:child_process";
import { existsSync, linkSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { CliError, exitCode } from "../exit.js";

interface Holder {
  pid: number;
  /** When the process started, in whatever unit the system gives; with the boot that it belongs to. */
  started: string;
  host: string;
  /** Said to whoever comes second. */
  note: string;
}

/** Folders where others start and stop in between; each round another process has won. */
const roundsMax = 20;

/** Start of a process as the system names it; undefined: no such process. */
function startOf(pid: number): string | undefined {
  if (existsSync("/proc/self/stat")) {
    try {
      const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
      // The name in parentheses may hold spaces; start time is the 22nd field, the 20th after it.
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      // A zombie has ended; its parent has not looked yet.
      return fields[0] === "Z" ? undefined : `${boot}/${fields[19]}`;
    } catch {
      return undefined;
    }
  }
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EPERM") return undefined;
  }
  try {
    return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).trim() || undefined;
  } catch {
    return "unknown";
  }
}

const lives = (holder: Holder): boolean => holder.host === hostname() && startOf(holder.pid) === holder.started;

function numbersIn(folder: string): number[] {
  return readdirSync(folder)
    .flatMap((name) => /^lock\.(\d{1,9})$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

function holderOf(path: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Holder;
  } catch {
    return undefined; // deleted meanwhile by a higher one, or not ours
  }
}

/** Makes `lock.<number>`, whole; false if another process was first. */
function make(folder: string, number: number, holder: Holder): boolean {
  const draft = join(folder, `draft.${holder.pid}.${number}`);
  writeFileSync(draft, JSON.stringify(holder));
  try {
    linkSync(draft, join(folder, `lock.${number}`));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
}

/**
 * Locks a folder, which is made if it is missing. The returned function unlocks it; a killed process unlocks by being gone.
 * `note` says where the holder can be found.
 * @throws CliError (refused) that names the process which holds it.
 */
export function lockFolder(folder: string, note: string): () => void {
  mkdirSync(folder, { recursive: true });
  const self: Holder = { pid: process.pid, started: startOf(process.pid) ?? "unknown", host: hostname(), note };
  for (let round = 0; round < roundsMax; round += 1) {
    const highest = numbersIn(folder).at(-1) ?? 0;
    const holder = highest > 0 ? holderOf(join(folder, `lock.${highest}`)) : undefined;
    if (holder && lives(holder)) {
      throw new CliError(exitCode.refused, `${folder} is in use by process ${holder.pid} (${holder.note})`, {
        hint: "Stop that one first, or use another folder: taskmesh dev --data <folder>",
      });
    }
    const mine = highest + 1;
    if (!make(folder, mine, self)) continue;
    const path = join(folder, `lock.${mine}`);
    const numbers = numbersIn(folder);
    if (numbers.some((number) => number > mine)) {
      rmSync(path, { force: true });
      continue;
    }
    for (const lower of numbers) if (lower < mine) rmSync(join(folder, `lock.${lower}`), { force: true });
    return () => writeFileSync(path, JSON.stringify({ ...self, pid: 0, started: "" }));
  }
  throw new CliError(exitCode.refused, `${folder} is being opened by other processes; try again`);
}
