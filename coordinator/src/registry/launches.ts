/** What every namespace has without anybody registering it: the actions that launch, and the system chain of both. */
import { ChainSpec } from "@taskmesh/proto";
import { parseChainDocument } from "@taskmesh/runtime";
import { launchContracts, launchesOf, launchMethod } from "../contracts/launch.js";
import { readChain } from "../store/chains.js";
import type { Db } from "../store/db.js";
import { bumpEpoch, claimMethods, insertContracts, knownContracts, readNamespaces } from "../store/registry.js";
import type { ChainSave } from "./chain-save.js";
import { newContract } from "./registration.js";
import { specInOrder } from "./spec-order.js";

/** The system chain: one of its steps runs, and starts what the input names. */
const launchDocument = `
description: Runs the action or chain that its input names, or a chain that is given as data.
contract:
  name: ${launchMethod}
run_timeout: 366d
steps:
  - id: start_action
    when: input.action != ''
    call: taskmesh.launch.v1.LaunchActions/StartAction
    input:
      action: input.action
      input: input.input
      labels: input.labels
      timeout: input.timeout
      detached: input.detached
  - id: start_chain
    when: input.action == ''
    call: taskmesh.launch.v1.LaunchActions/StartChain
    input:
      chain: input.chain
      document: input.document
      spec: input.spec
      input: input.input
      labels: input.labels
      timeout: input.timeout
      detached: input.detached
output:
  run_id: >-
    has(steps.start_action.output) ? steps.start_action.output.run_id :
    has(steps.start_chain.output) ? steps.start_chain.output.run_id : ''
  output: >-
    has(steps.start_action.output) ? steps.start_action.output.output :
    has(steps.start_chain.output) ? steps.start_chain.output.output : null
`;

/** Sees to it that every namespace has them, as this release knows them. Repeating it changes nothing. */
export async function installLaunches(db: Db, chainSave: Pick<ChainSave, "putOwn">): Promise<void> {
  const actions = [...launchContracts().values()].filter(({ method }) => launchesOf(method) !== undefined);
  const spec = readSpec();
  const encoded = ChainSpec.encode(specInOrder(spec)).finish();
  for (const { id } of await readNamespaces(db)) {
    const known = await knownContracts(
      db,
      id,
      "action",
      actions.map(({ method }) => method),
    );
    const missing = actions.filter(({ method, fingerprint }) => !known.has(`${method}@${fingerprint}`));
    if (missing.length > 0) {
      await db.transaction(async (tx) => {
        await claimMethods(
          tx,
          id,
          "action",
          missing.map(({ method }) => method),
        );
        await insertContracts(tx, id, "action", missing.map(newContract));
        await bumpEpoch(tx);
      });
    }
    const stored = await readChain(db, id, launchMethod, 0);
    const pinned = actions.every(({ method, fingerprint }) => stored?.pins[method] === fingerprint);
    // Compiling it is most of what a start would cost.
    if (!stored || !pinned || Buffer.compare(stored.spec, encoded) !== 0) await chainSave.putOwn(id, spec);
  }
}

function readSpec(): ChainSpec {
  const { spec, problems } = parseChainDocument(launchDocument);
  if (!spec) throw new Error(`the system chain can't be read: ${problems[0]?.message}`);
  return spec;
}
