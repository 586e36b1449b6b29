CREATE TABLE "assignment_claims" (
	"run_id" uuid NOT NULL,
	"step" smallint NOT NULL,
	"item" integer NOT NULL,
	"person" text NOT NULL,
	CONSTRAINT "assignment_claims_run_id_step_item_pk" PRIMARY KEY("run_id","step","item")
);
--> statement-breakpoint
CREATE TABLE "assignments" (
	"run_id" uuid NOT NULL,
	"step" smallint NOT NULL,
	"item" integer NOT NULL,
	"namespace_id" integer NOT NULL,
	"step_id" text NOT NULL,
	"contract" text NOT NULL,
	"terms" jsonb NOT NULL,
	"opened_at" timestamp with time zone NOT NULL,
	"due_at" timestamp with time zone,
	CONSTRAINT "assignments_run_id_step_item_pk" PRIMARY KEY("run_id","step","item")
);
--> statement-breakpoint
CREATE INDEX "assignments_by_namespace" ON "assignments" USING btree ("namespace_id","run_id");