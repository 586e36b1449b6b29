/**
 * `coordinator/dist/main.js migrate`: brings the database to this version's schema and ends. Deployments run it before they roll out new
 * coordinators, so that a migration of hours neither holds up their start nor is cut off by it. Needs DATABASE_URL and nothing else.
 */
import {
  ConfigError,
  coordinatorSettings,
  createLogger,
  type Environment,
  readSettings,
  setLogLevel,
} from "@taskmesh/runtime";
import { countMigrations, migrate } from "./store/migrate.js";
import { openPostgres } from "./store/postgres.js";

/** Longest time of one statement of a migration: a large table may have to be read whole. */
const statementTimeoutMs = 6 * 3600 * 1000;

/**
 * Migrates the database of DATABASE_URL. Safe to repeat and to run at several places at once. Resolves to the exit code: 0 when the schema
 * is this version's, 1 when the database can't be reached or refuses, nothing then being changed.
 * @throws ConfigError when DATABASE_URL is missing or wrong.
 */
export async function migrateOnly(env: Environment): Promise<number> {
  const { databaseUrl, logLevel } = coordinatorSettings;
  const { values, faults } = readSettings({ databaseUrl, logLevel }, env);
  if (faults.length > 0) throw new ConfigError(faults);
  setLogLevel(values.logLevel);
  const log = createLogger("migrate");
  const database = openPostgres({ url: values.databaseUrl, connectionsMax: 1, statementTimeoutMs });
  try {
    const before = await countMigrations(database);
    await migrate(database);
    const after = await countMigrations(database);
    log.info({ applied: after - before, migrations: after }, "the database has this version's schema");
    return 0;
  } catch (error) {
    log.fatal({ err: error }, "the database could not be migrated; nothing was changed");
    return 1;
  } finally {
    await database.close();
  }
}
