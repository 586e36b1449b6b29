CREATE TABLE "attempt_reports" (
	"run_id" uuid NOT NULL,
	"step_id" text NOT NULL,
	"item" integer NOT NULL,
	"attempt" integer NOT NULL,
	"percent" real NOT NULL,
	"message" text NOT NULL,
	"checkpoint" "bytea",
	"at" timestamp with time zone NOT NULL,
	CONSTRAINT "attempt_reports_run_id_step_id_item_pk" PRIMARY KEY("run_id","step_id","item")
);
