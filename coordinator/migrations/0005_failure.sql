CREATE TABLE "broken_runs" (
	"run_id" uuid PRIMARY KEY NOT NULL,
	"namespace_id" integer NOT NULL,
	"method" text NOT NULL,
	"action" text NOT NULL,
	"step_id" text NOT NULL,
	"reason" text NOT NULL,
	"broken_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE INDEX "broken_runs_by_group" ON "broken_runs" USING btree ("namespace_id","reason","action","method","run_id");