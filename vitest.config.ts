import { defineConfig } from "vitest/config";

// Tests read the sources of every package, never a build.
const conditions = ["@taskmesh/source", "node", "import", "default"];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions } },
  test: {
    include: ["*/src/**/*.test.ts", "test/**/*.test.ts"],
    pool: "forks",
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Many tests wait for processes; in CI, where nobody else uses the machine, a third one fills those gaps.
    maxWorkers: process.env["CI"] ? 3 : 2,
    // Tests that kill processes share two cores with each other in CI: one more try, which the report shows, before a change is refused.
    retry: process.env["CI"] ? 1 : 0,
  },
});
