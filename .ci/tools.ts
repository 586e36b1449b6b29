/**
 * Fetches the tools that tests of chart and image need; fails with what to do where that is not possible. `clients`: builds the gRPC clients of other
 * languages instead; what is missing for one of them is told here, and by its tests.
 */
import { prepareStockClient, stockLanguages } from "../test/fixtures/stock-clients.js";
import { fetchTools } from "../test/fixtures/tools.js";

async function buildClients(): Promise<void> {
  for (const language of stockLanguages) {
    const client = await prepareStockClient(language);
    if ("missing" in client) process.stderr.write(`${client.missing}\n`);
  }
}

try {
  await (process.argv[2] === "clients" ? buildClients() : fetchTools());
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = 1;
}
