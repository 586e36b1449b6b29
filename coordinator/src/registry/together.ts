/**
 * Work of many callers that is done together: when thousands of workers come back at once, each would otherwise cost the database a transaction
 * of its own.
 *
 * T1. A round takes what came before it began, so what it reads is never older than the question.
 * T2. Rounds never overlap. Items of one key never share one.
 * T3. A round that fails is repeated item by item: one bad value never fails strangers.
 */
export interface TogetherOptions<In, Out> {
  /** Does a round; answers in the order of the items, an Error in place of an answer rejects that item alone. */
  round: (items: readonly In[]) => Promise<readonly (Out | Error)[]>;
  /** Items of one key are done in different rounds; default: all may share one. */
  key?: (item: In) => string;
  /** Items of one round, default 256. */
  max?: number;
}

interface Waiting<In, Out> {
  item: In;
  resolve(answer: Out): void;
  reject(error: unknown): void;
}

/** Makes a function that does its items together. */
export function together<In, Out>({ round, key, max = 256 }: TogetherOptions<In, Out>): (item: In) => Promise<Out> {
  let queue: Waiting<In, Out>[] = [];
  let busy = false;

  const settle = async (batch: readonly Waiting<In, Out>[]): Promise<void> => {
    try {
      const answers = await round(batch.map(({ item }) => item));
      batch.forEach(({ resolve, reject }, at) => {
        const answer = answers[at]!;
        if (answer instanceof Error) reject(answer);
        else resolve(answer);
      });
    } catch (error) {
      if (batch.length === 1) batch[0]!.reject(error);
      else for (const one of batch) await settle([one]); // T3
    }
  };

  const take = (): Waiting<In, Out>[] => {
    const seen = new Set<string>();
    const batch: Waiting<In, Out>[] = [];
    const rest: Waiting<In, Out>[] = [];
    for (const one of queue) {
      const name = key?.(one.item);
      if (batch.length >= max || (name !== undefined && seen.has(name))) rest.push(one);
      else batch.push(one);
      if (name !== undefined) seen.add(name);
    }
    queue = rest;
    return batch;
  };

  const run = async (): Promise<void> => {
    busy = true;
    while (queue.length > 0) await settle(take());
    busy = false;
  };

  return (item) =>
    new Promise((resolve, reject) => {
      queue.push({ item, resolve, reject });
      if (!busy) void run();
    });
}
