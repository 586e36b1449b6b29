// Where actions run from source (tests, `npm run dev`), a thread needs the TypeScript loader first. Not part of the build.
import { register } from "tsx/esm/api";

register();
await import("./thread.ts");
