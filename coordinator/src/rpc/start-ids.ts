/** What a start says of who asks, and under which id of its own. */
import { IdConflictPolicy, IdReusePolicy, type StartRunRequest } from "@taskmesh/proto";
import type { CustomId } from "../pipeline/ports.js";
import { text } from "./call-settings.js";
import type { CallContext } from "./calls.js";
import { hasControl } from "./given-value.js";

/** Metadata by which a caller says who it is, where the request has no place for it. */
export const starterKey = "taskmesh-starter";

const customIdCharsMax = 256;
const starterCharsMax = 128;

type Bad = (field: string, message: string) => void;

const conflicts: Partial<Record<IdConflictPolicy, CustomId["conflict"]>> = {
  [IdConflictPolicy.ID_CONFLICT_POLICY_UNSPECIFIED]: "fail",
  [IdConflictPolicy.ID_CONFLICT_POLICY_FAIL]: "fail",
  [IdConflictPolicy.ID_CONFLICT_POLICY_USE_EXISTING]: "use",
  [IdConflictPolicy.ID_CONFLICT_POLICY_TERMINATE_EXISTING]: "terminate",
};
const reuses: Partial<Record<IdReusePolicy, CustomId["reuse"]>> = {
  [IdReusePolicy.ID_REUSE_POLICY_UNSPECIFIED]: "allow",
  [IdReusePolicy.ID_REUSE_POLICY_ALLOW]: "allow",
  [IdReusePolicy.ID_REUSE_POLICY_ALLOW_IF_FAILED]: "if-failed",
  [IdReusePolicy.ID_REUSE_POLICY_REJECT]: "reject",
};

/** The custom id that is asked for; undefined: none. */
export function readCustomId(request: StartRunRequest, bad: Bad): CustomId | undefined {
  const { customId: name, idConflict, idReuse } = request;
  if (name.length > customIdCharsMax || hasControl(name))
    bad("custom_id", `must be at most ${customIdCharsMax} printable characters`);
  const conflict = conflicts[idConflict];
  const reuse = reuses[idReuse];
  if (!conflict) bad("id_conflict", "is none of FAIL, USE_EXISTING and TERMINATE_EXISTING");
  if (!reuse) bad("id_reuse", "is none of ALLOW, ALLOW_IF_FAILED and REJECT");
  const said = idConflict !== IdConflictPolicy.ID_CONFLICT_POLICY_UNSPECIFIED;
  if (name === "" && (said || idReuse !== IdReusePolicy.ID_REUSE_POLICY_UNSPECIFIED))
    bad("custom_id", "is missing: the policies are about it");
  return name === "" || !conflict || !reuse ? undefined : { name, conflict, reuse };
}

/** Who starts a run: the name in the client's certificate, and behind it what the caller says of itself. */
export function readStarter(said: string, context: CallContext, bad: Bad): string | undefined {
  const claimed = said === "" ? text(context.metadata, starterKey) : said;
  if (claimed.length > starterCharsMax || hasControl(claimed))
    bad("starter", `must be at most ${starterCharsMax} printable characters`);
  const principal = context.principal();
  if (principal === undefined) return claimed === "" ? undefined : claimed;
  return claimed === "" ? principal : `${principal}/${claimed}`;
}
