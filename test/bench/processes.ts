/** What /proc says of processes: CPU time, memory, children. */
import { readdirSync, readFileSync } from "node:fs";

/** Clock ticks a second; 100 on every Linux that Node runs on. */
const ticks = 100;

interface Stat {
  parent: number;
  cpu: number;
}

function statOf(pid: string | number): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return {
      parent: Number(fields[1]),
      cpu: Number(fields[11]) + Number(fields[12]) + Number(fields[13]) + Number(fields[14]),
    };
  } catch {
    return undefined;
  }
}

/** CPU seconds of a process and its live descendants so far. */
export function cpuSeconds(pid: number): number {
  const all = new Map<number, Stat>();
  for (const name of readdirSync("/proc")) {
    const found = /^\d+$/.test(name) ? statOf(name) : undefined;
    if (found) all.set(Number(name), found);
  }
  let total = 0;
  const open = [pid];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    total += all.get(at)?.cpu ?? 0;
    for (const [child, { parent }] of all) if (parent === at) open.push(child);
  }
  return total / ticks;
}

/** Resident memory of one process in MB. */
export function rssMb(pid: number): number {
  const found = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Math.round(Number(found?.[1] ?? 0) / 1024);
}

/** CPU seconds that all processes of the machine have used. */
export function machineSeconds(): number {
  const fields = readFileSync("/proc/stat", "utf8").split("\n", 1)[0]!.trim().split(/\s+/).map(Number);
  return ((fields[1] ?? 0) + (fields[2] ?? 0) + (fields[3] ?? 0) + (fields[6] ?? 0) + (fields[7] ?? 0)) / ticks;
}
