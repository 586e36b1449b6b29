CREATE TABLE "chores" (
	"name" text PRIMARY KEY NOT NULL,
	"holder" text NOT NULL,
	"due_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "namespaces" ADD COLUMN "retention_days" integer DEFAULT 30 NOT NULL;--> statement-breakpoint
ALTER TABLE "payloads" ADD COLUMN "used_at" timestamp with time zone DEFAULT now() NOT NULL;--> statement-breakpoint
CREATE INDEX "payloads_used_at_idx" ON "payloads" USING btree ("used_at");--> statement-breakpoint
ALTER TABLE "namespaces" ADD CONSTRAINT "namespaces_retention_days_check" CHECK ("namespaces"."retention_days" between 1 and 36500);