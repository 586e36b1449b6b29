/** The contracts of the built-in actions as generated code, for chains and clients in TypeScript. */
export { FilterActionsService } from "./gen/taskmesh/filter/v1/filter.js";
export { GenerateActionsService } from "./gen/taskmesh/generate/v1/generate.js";
export { HtmlActionsService } from "./gen/taskmesh/html/v1/html.js";
export { HttpActionsService } from "./gen/taskmesh/http/v1/http.js";
export { JsonActionsService } from "./gen/taskmesh/json/v1/json.js";
export { TextActionsService } from "./gen/taskmesh/text/v1/text.js";
export { TimeActionsService } from "./gen/taskmesh/time/v1/time.js";
