/** What `taskmesh doctor` finds in the servers of a deployment. */
import { type CoordinatorConfig, diagnoseNats, type Finding } from "@taskmesh/runtime";
import { type DatabaseDiagnosis, diagnoseDatabase } from "./store/diagnose.js";
import { openPostgres } from "./store/postgres.js";

/** Looks at the database and the NATS servers of a configuration and changes nothing. Never rejects; takes a minute at most. */
export async function diagnoseServers(config: Pick<CoordinatorConfig, "databaseUrl" | "nats">): Promise<Finding[]> {
  const findings: Finding[] = [];
  let mesh: Pick<DatabaseDiagnosis, "coordinators" | "lanes"> = { coordinators: undefined, lanes: [] };
  if (config.databaseUrl !== undefined) {
    const db = openPostgres({ url: config.databaseUrl, connectionsMax: 1, statementTimeoutMs: 5_000 });
    const diagnosis = await diagnoseDatabase(db).finally(() => db.close());
    findings.push(...diagnosis.findings);
    mesh = diagnosis;
  }
  if (config.nats) {
    const { servers, credentials, replicas = 1 } = config.nats;
    findings.push(...(await diagnoseNats({ servers, credentials, replicas, ...mesh })));
  }
  return findings;
}
