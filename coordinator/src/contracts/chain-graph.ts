/** The graph of a chain's steps: who waits for whom, and whether anybody waits for itself. */

/** The steps of one cycle in the order in which they wait for each other; undefined: there is none. `needs` by step index. */
export function findCycle(needs: readonly ReadonlySet<number>[]): number[] | undefined {
  const state = new Uint8Array(needs.length); // 0 new, 1 on the path, 2 done
  for (let root = 0; root < needs.length; root++) {
    if (state[root] !== 0) continue;
    // An explicit stack: a chain may be a thousand steps long.
    const path: { step: number; open: number[] }[] = [{ step: root, open: [...needs[root]!] }];
    state[root] = 1;
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const next = top.open.pop();
      if (next === undefined) {
        state[top.step] = 2;
        path.pop();
      } else if (state[next] === 1) {
        const steps = path.map((entry) => entry.step);
        return steps.slice(steps.indexOf(next));
      } else if (state[next] === 0) {
        state[next] = 1;
        path.push({ step: next, open: [...needs[next]!] });
      }
    }
  }
  return undefined;
}

/** The same edges from the other side: for each step, the steps that need it. */
export function neededBy(needs: readonly ReadonlySet<number>[]): number[][] {
  const result: number[][] = needs.map(() => []);
  for (const [step, before] of needs.entries()) for (const other of before) result[other]!.push(step);
  return result;
}
