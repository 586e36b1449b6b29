CREATE TABLE "step_items" (
	"run_id" uuid NOT NULL,
	"step" smallint NOT NULL,
	"item" integer NOT NULL,
	"state" text NOT NULL,
	"input" "bytea",
	CONSTRAINT "step_items_run_id_step_item_pk" PRIMARY KEY("run_id","step","item")
);
