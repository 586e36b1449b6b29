/**
 * Chains on trial: `rehearse` runs a chain without a mesh, with stubs in place of workers and time that is skipped.
 *
 *   const run = await rehearse(report, { descriptors: [descriptors], input: { url: "u" }, actions: [stub(PageActionsService.score, () => ({ words: 3 }))] });
 *   expect(run).toMatchObject({ status: "SUCCEEDED", path: ["score"], output: { words: 3 } });
 */
export { type Rehearsal, type RehearsedStep, type RehearseOptions, rehearse } from "./rehearsal.js";
export type { Rehearsed } from "./setup.js";
export {
  failsForGood,
  failsForNow,
  hangs,
  inTurn,
  type Later,
  type Stub,
  type StubAnswer,
  type StubbedMethod,
  type StubContext,
  StubFailure,
  type StubHandler,
  stub,
  takes,
} from "./stub.js";
