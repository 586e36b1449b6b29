/** Fetches the tools that tests of chart and image need; fails with what to do where that is not possible. */
import { fetchTools } from "../test/fixtures/tools.js";

try {
  await fetchTools();
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = 1;
}
