/** The workers of the storm, as a module of the build. */
import "../fixtures/worker-fleet.js";
