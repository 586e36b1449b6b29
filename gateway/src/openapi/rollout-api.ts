/** The routes of how new revisions of contracts are brought in, as operations of the document. */
import type { ControlOperation } from "./control-api.js";
import { meshRef } from "./control-schemas.js";

const method = {
  name: "method",
  description: "Full method name of an action; default all.",
  schema: { type: "string" },
} as const;

/** Canaries and upcasters. */
export const rolloutOperations: readonly ControlOperation[] = [
  {
    ...{ route: "get /api/v1/contracts/canaries", id: "listCanaries", tag: "Actions" },
    summary: "Show which share of the starts new revisions get",
    query: [method],
    answers: { 200: meshRef("ListCanariesResponse") },
  },
  {
    ...{ route: "put /api/v1/contracts/canaries", id: "setCanary", tag: "Actions" },
    summary: "Give new revisions of an action a share of the starts",
    body: meshRef("SetCanaryRequest"),
    answers: { 200: meshRef("SetCanaryResponse") },
  },
  {
    ...{ route: "post /api/v1/contracts/canaries/clear", id: "clearCanary", tag: "Actions" },
    summary: "End the canary of an action",
    body: meshRef("ClearCanaryRequest"),
    answers: { 200: meshRef("ClearCanaryResponse") },
  },
  {
    ...{ route: "get /api/v1/contracts/upcasters", id: "listUpcasters", tag: "Actions" },
    summary: "Show how inputs of one revision become those of another",
    query: [method],
    answers: { 200: meshRef("ListUpcastersResponse") },
  },
  {
    ...{ route: "post /api/v1/contracts/upcasters", id: "declareUpcaster", tag: "Actions" },
    summary: "Declare an upcaster, after trying it with live runs",
    body: meshRef("DeclareUpcasterRequest"),
    answers: { 200: meshRef("DeclareUpcasterResponse") },
  },
  {
    ...{ route: "post /api/v1/contracts/upcasters/delete", id: "deleteUpcaster", tag: "Actions" },
    summary: "Take an upcaster back",
    body: meshRef("DeleteUpcasterRequest"),
    answers: { 200: meshRef("DeleteUpcasterResponse") },
  },
];
