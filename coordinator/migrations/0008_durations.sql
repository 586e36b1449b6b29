CREATE TABLE "call_durations" (
	"namespace_id" integer NOT NULL,
	"method" text NOT NULL,
	"recent_ms" real[] NOT NULL,
	"at" timestamp with time zone NOT NULL,
	CONSTRAINT "call_durations_namespace_id_method_pk" PRIMARY KEY("namespace_id","method")
);
