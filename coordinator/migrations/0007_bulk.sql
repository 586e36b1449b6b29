CREATE TABLE "bulk_operations" (
	"id" uuid PRIMARY KEY NOT NULL,
	"namespace_id" integer NOT NULL,
	"request" "bytea" NOT NULL,
	"cursor" uuid,
	"last_id" uuid NOT NULL,
	"changed" integer DEFAULT 0 NOT NULL,
	"unchanged" integer DEFAULT 0 NOT NULL,
	"failed" integer DEFAULT 0 NOT NULL,
	"last_failure" text DEFAULT '' NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"ended_at" timestamp with time zone,
	"claim" uuid,
	"claimed_until" timestamp with time zone
);
--> statement-breakpoint
CREATE INDEX "bulk_operations_open" ON "bulk_operations" USING btree ("claimed_until") WHERE ended_at is null;