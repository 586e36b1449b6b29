CREATE TABLE "seen_keys" (
	"set_id" integer NOT NULL,
	"key_hash" "bytea" NOT NULL,
	"owner" text NOT NULL,
	"seen_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "seen_keys_set_id_key_hash_pk" PRIMARY KEY("set_id","key_hash")
);
--> statement-breakpoint
CREATE TABLE "seen_sets" (
	"id" integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "seen_sets_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 2147483647 START WITH 1 CACHE 1),
	"namespace_id" integer NOT NULL,
	"method" text NOT NULL,
	"name" text NOT NULL,
	CONSTRAINT "seen_sets_key" UNIQUE("namespace_id","method","name")
);
