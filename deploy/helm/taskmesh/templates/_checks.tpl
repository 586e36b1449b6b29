{{/* What no schema can say: settings that need each other. All faults are told at once, each with its setting, problem and fix. */}}
{{- define "taskmesh.checks" -}}
{{- $faults := list -}}
{{- $values := .Values -}}
{{- if not $values.auth.existingSecret -}}
{{- $faults = append $faults "auth.existingSecret: is empty; name the Secret with the bearer tokens (kubectl create secret generic taskmesh-token --from-literal=token=$(openssl rand -hex 32))" -}}
{{- end -}}
{{- if not (or $values.database.existingSecret (and $values.postgres.enabled $values.postgres.authSecret)) -}}
{{- $faults = append $faults "database.existingSecret: is empty; name the Secret with the URL of Postgres, or set postgres.enabled and postgres.authSecret for a trial" -}}
{{- end -}}
{{- if not (or $values.nats.enabled $values.broker.urls) -}}
{{- $faults = append $faults "broker.urls: is empty; name the NATS servers, or set nats.enabled for a trial" -}}
{{- end -}}
{{- if and $values.nats.enabled $values.broker.urls -}}
{{- $faults = append $faults "broker.urls: is set, and so is nats.enabled; choose one" -}}
{{- end -}}
{{- if and $values.postgres.enabled $values.database.existingSecret -}}
{{- $faults = append $faults "database.existingSecret: is set, and so is postgres.enabled; choose one" -}}
{{- end -}}
{{- if and $values.postgres.enabled (not $values.postgres.authSecret) -}}
{{- $faults = append $faults "postgres.authSecret: is empty; name the Secret with the keys password and url" -}}
{{- end -}}
{{- if and $values.nats.enabled (not $values.nats.authSecret) -}}
{{- $faults = append $faults "nats.authSecret: is empty; name the Secret with the files that deploy/nats-keys.mjs makes" -}}
{{- end -}}
{{- if and (not $values.nats.enabled) (not $values.broker.existingSecret) -}}
{{- $faults = append $faults "broker.existingSecret: is empty; name the Secret with the coordinators' NATS credentials and the account's seed" -}}
{{- end -}}
{{- if and $values.tls.mutual (not $values.tls.enabled) -}}
{{- $faults = append $faults "tls.mutual: is set, but TLS is off; set tls.enabled" -}}
{{- end -}}
{{- if and $values.tls.enabled (not $values.tls.certManager.enabled) (not $values.tls.secretName) -}}
{{- $faults = append $faults "tls.secretName: is empty; name the Secret with tls.crt, tls.key and ca.crt, or set tls.certManager.enabled" -}}
{{- end -}}
{{- if and $values.tls.enabled $values.tls.mutual (not $values.tls.certManager.enabled) (not $values.tls.clientSecretName) -}}
{{- $faults = append $faults "tls.clientSecretName: is empty; name the Secret with the certificate of gateways and workers, or set tls.certManager.enabled" -}}
{{- end -}}
{{- if and $values.tls.certManager.enabled (not $values.tls.certManager.issuerRef.name) -}}
{{- $faults = append $faults "tls.certManager.issuerRef.name: is empty; name the issuer" -}}
{{- end -}}
{{- range $kind, $spec := $values.ingress -}}
{{- if and $spec.enabled (not $spec.host) -}}
{{- $faults = append $faults (printf "ingress.%s.host: is empty; name the host" $kind) -}}
{{- end -}}
{{- end -}}
{{- if and $values.ingress.grpc.enabled (not $values.ingress.grpc.tlsSecretName) -}}
{{- $faults = append $faults "ingress.grpc.tlsSecretName: is empty; gRPC through an Ingress needs TLS: name the Secret with the host's certificate" -}}
{{- end -}}
{{- if and $values.ingress.rest.enabled (not $values.gateway.enabled) -}}
{{- $faults = append $faults "ingress.rest.enabled: is set, but there is no gateway; set gateway.enabled" -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled $values.ingress.grpc.enabled (not $values.networkPolicy.grpcFrom) -}}
{{- $faults = append $faults "networkPolicy.grpcFrom: is empty, so the ingress controller can't reach coordinators; name its pods" -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled $values.monitoring.serviceMonitor.enabled (not $values.networkPolicy.metricsFrom) -}}
{{- $faults = append $faults "networkPolicy.metricsFrom: is empty, so Prometheus can't reach metrics; name its pods" -}}
{{- end -}}
{{- range $name, $own := $values.workers -}}
{{- if $own -}}
{{- $spec := mergeOverwrite (deepCopy $values.workerDefaults) $own -}}
{{- if and $spec.autoscaling.enabled $spec.keda.enabled -}}
{{- $faults = append $faults (printf "workers.%s.keda.enabled: is set, and so is autoscaling.enabled; two scalers would fight: choose one" $name) -}}
{{- end -}}
{{- if and $spec.keda.enabled (not $spec.keda.prometheus) -}}
{{- $faults = append $faults (printf "workers.%s.keda.prometheus: is empty; name the Prometheus that KEDA asks" $name) -}}
{{- end -}}
{{- if and $spec.image.repository (not $spec.image.tag) (not $spec.image.digest) -}}
{{- $faults = append $faults (printf "workers.%s.image.tag: is empty; name the tag or the digest of your image" $name) -}}
{{- end -}}
{{- if and $spec.namespace (not (has $spec.namespace $values.namespaces)) -}}
{{- $faults = append $faults (printf "workers.%s.namespace: %s is not one of namespaces; add it there" $name $spec.namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "\n  %s\n" (join "\n  " $faults)) -}}
{{- end -}}
{{- end }}
