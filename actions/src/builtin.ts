/** All built-in actions as one list, and what they need. */
import type { AnyAction } from "@taskmesh/action-sdk";
import {
  type ChannelConfig,
  ConfigError,
  clientConfig,
  type Environment,
  readSettings,
  readTogether,
  settingsTables,
} from "@taskmesh/runtime";
import { createThreadPool } from "./bounded/thread-pool.js";
import { filterActions } from "./filter/action.js";
import { createMeshSeenStore, type SeenStore } from "./filter/seen-store.js";
import { generateActions } from "./generate/action.js";
import { htmlActions } from "./html/action.js";
import { type HttpSettings, httpActions } from "./http/action.js";
import { parseAllowList } from "./http/egress.js";
import { jsonActions } from "./json/action.js";
import { textActions } from "./text/action.js";
import { timeActions } from "./time/action.js";

/** What the built-in actions need. */
export interface BuiltinConfig {
  http?: HttpSettings;
  /** How the filter action reaches a coordinator. */
  mesh: ChannelConfig;
  /** Where the filter action remembers. Default: the mesh itself, over `mesh`. */
  seen?: SeenStore;
}

const settings = settingsTables["Built-in actions"];

/**
 * The configuration that the environment gives: TASKMESH_HTTP_ALLOW, and the settings of a client of the mesh.
 * @throws ConfigError with every fault.
 */
export function builtinConfig(env: Environment): BuiltinConfig {
  const { values, faults } = readSettings(settings, env);
  const allow = values.httpAllow ?? [];
  try {
    parseAllowList(allow);
  } catch (error) {
    const { variable, fix } = settings.httpAllow;
    faults.push({ variable, problem: (error as Error).message, fix });
  }
  const [mesh] = readTogether(
    () => clientConfig(env),
    () => {
      if (faults.length > 0) throw new ConfigError(faults);
    },
  );
  return { http: { allow }, mesh };
}

/**
 * Every built-in action, for `startWorker({ descriptors: builtinDescriptors, actions: builtinActions(config) })`.
 * Nothing connects or starts before an action runs, and nothing keeps the process alive afterwards.
 */
export function builtinActions(config: BuiltinConfig): AnyAction[] {
  const threads = createThreadPool();
  return [
    ...httpActions(config.http),
    ...htmlActions(threads),
    ...jsonActions(threads),
    ...textActions(threads),
    ...filterActions(config.seen ?? createMeshSeenStore(config.mesh)),
    ...generateActions(),
    ...timeActions(),
  ];
}
