/**
 * postgres.js 3.4.9 can write to a connection that has just closed, in a callback of its own where nobody can catch the error, and the
 * process would end (porsager/postgres issues 1154 and 1208). Its query was rejected before, so nothing is lost by going on; but a connection
 * that met this never writes again, so whoever holds clients is told to replace them. Then the driver's own rollback of a transaction that was
 * cut is rejected, which nobody holds either; it says nothing new.
 *
 * Any other uncaught error ends the process as it would without this.
 */
const replacers = new Set<() => void>();

/** Calls `replace` when the driver may have broken a connection beyond use. Returns how to stop that. */
export function guardDriver(replace: () => void): () => void {
  if (replacers.size === 0) process.on("uncaughtException", onUncaught);
  replacers.add(replace);
  return () => {
    if (replacers.delete(replace) && replacers.size === 0) process.off("uncaughtException", onUncaught);
  };
}

function onUncaught(error: unknown): void {
  if (isWriteToClosed(error)) {
    for (const replace of replacers) replace();
    return;
  }
  if (isAbandonedQuery(error)) return;
  // Another listener decides what becomes of it.
  if (process.listenerCount("uncaughtException") > 1) return;
  console.error(error);
  process.exit(1);
}

const isAbandonedQuery = (error: unknown): boolean =>
  error instanceof Error &&
  /^CONNECTION_(DESTROYED|CLOSED|ENDED)$/.test(String((error as { code?: unknown }).code)) &&
  /\bpostgres\b[^\n]*\bconnection\.js\b/.test(error.stack ?? "");

const isWriteToClosed = (error: unknown): boolean =>
  error instanceof TypeError && /\bnextWrite\b[^\n]*\bpostgres\b[^\n]*\bconnection\.js\b/.test(error.stack ?? "");
