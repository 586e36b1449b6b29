CREATE TABLE "contract_canaries" (
	"id" integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "contract_canaries_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 2147483647 START WITH 1 CACHE 1),
	"namespace_id" integer NOT NULL,
	"method" text NOT NULL,
	"fingerprint" text NOT NULL,
	"after_revision" integer NOT NULL,
	"share" integer,
	"reason" text NOT NULL,
	"changed_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "contract_canaries_share_check" CHECK ("contract_canaries"."share" is null or "contract_canaries"."share" between 0 and 100)
);
--> statement-breakpoint
CREATE TABLE "contract_upcasters" (
	"namespace_id" integer NOT NULL,
	"method" text NOT NULL,
	"from_contract" text NOT NULL,
	"to_contract" text NOT NULL,
	"spec" "bytea" NOT NULL,
	"reason" text NOT NULL,
	"declared_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "contract_upcasters_pkey" PRIMARY KEY("namespace_id","method","from_contract","to_contract")
);
--> statement-breakpoint
ALTER TABLE "contract_canaries" ADD CONSTRAINT "contract_canaries_namespace_id_namespaces_id_fk" FOREIGN KEY ("namespace_id") REFERENCES "public"."namespaces"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "contract_upcasters" ADD CONSTRAINT "contract_upcasters_namespace_id_namespaces_id_fk" FOREIGN KEY ("namespace_id") REFERENCES "public"."namespaces"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "contract_canaries_method_idx" ON "contract_canaries" USING btree ("namespace_id","method","id");