CREATE TABLE "custom_ids" (
	"namespace_id" integer NOT NULL,
	"name" text NOT NULL,
	"run_id" uuid NOT NULL,
	"holder" uuid,
	"request_hash" "bytea",
	CONSTRAINT "custom_ids_namespace_id_name_pk" PRIMARY KEY("namespace_id","name")
);
--> statement-breakpoint
CREATE TABLE "run_successors" (
	"run_id" uuid NOT NULL,
	"successor_id" uuid NOT NULL,
	CONSTRAINT "run_successors_run_id_successor_id_pk" PRIMARY KEY("run_id","successor_id")
);
--> statement-breakpoint
ALTER TABLE "broken_runs" ADD COLUMN "starter" text;--> statement-breakpoint
ALTER TABLE "runs" ADD COLUMN "starter" text;--> statement-breakpoint
CREATE INDEX "custom_ids_by_run" ON "custom_ids" USING btree ("run_id");