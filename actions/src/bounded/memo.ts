/** Keeps the results of a function whose arguments come again and again: the steps of a chain use the same template and pattern in each run. */

/** Longer keys are computed each time: they would hold memory for little. */
const keyCharsMax = 16 * 1024;

/** `compute` with its last `entriesMax` results kept. What it throws is not kept. */
export function memoize<V>(entriesMax: number, compute: (key: string) => V): (key: string) => V {
  const kept = new Map<string, V>();
  return (key) => {
    if (key.length > keyCharsMax) return compute(key);
    const known = kept.get(key);
    if (known !== undefined) {
      // Back to the end of the line: the first is the one that was used least recently.
      kept.delete(key);
      kept.set(key, known);
      return known;
    }
    const made = compute(key);
    kept.set(key, made);
    if (kept.size > entriesMax) kept.delete(kept.keys().next().value!);
    return made;
  };
}
