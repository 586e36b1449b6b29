CREATE TABLE "contract_gates" (
	"id" integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "contract_gates_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 2147483647 START WITH 1 CACHE 1),
	"namespace_id" integer NOT NULL,
	"mode" text NOT NULL,
	"reason" text NOT NULL,
	"changed_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "contract_gates_mode_check" CHECK ("contract_gates"."mode" in ('refuse', 'quarantine', 'allow')),
	CONSTRAINT "contract_gates_reason_check" CHECK ("contract_gates"."mode" <> 'allow' or "contract_gates"."reason" <> '')
);
--> statement-breakpoint
CREATE TABLE "contract_verdicts" (
	"namespace_id" integer NOT NULL,
	"method" text NOT NULL,
	"fingerprint" text NOT NULL,
	"verdict" text NOT NULL,
	"reason" text NOT NULL,
	"base" text NOT NULL,
	"violations" jsonb NOT NULL,
	"decided_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "contract_verdicts_pkey" PRIMARY KEY("namespace_id","method","fingerprint"),
	CONSTRAINT "contract_verdicts_verdict_check" CHECK ("contract_verdicts"."verdict" in ('quarantined', 'allowed')),
	CONSTRAINT "contract_verdicts_reason_check" CHECK ("contract_verdicts"."verdict" <> 'allowed' or "contract_verdicts"."reason" <> '')
);
--> statement-breakpoint
ALTER TABLE "contract_gates" ADD CONSTRAINT "contract_gates_namespace_id_namespaces_id_fk" FOREIGN KEY ("namespace_id") REFERENCES "public"."namespaces"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "contract_verdicts" ADD CONSTRAINT "contract_verdicts_namespace_id_namespaces_id_fk" FOREIGN KEY ("namespace_id") REFERENCES "public"."namespaces"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "contract_gates_namespace_id_id_idx" ON "contract_gates" USING btree ("namespace_id","id");--> statement-breakpoint
CREATE INDEX "contract_verdicts_quarantined_idx" ON "contract_verdicts" USING btree ("namespace_id") WHERE "contract_verdicts"."verdict" = 'quarantined';