{{/* Names and labels. The base leaves room for the longest suffix within 63 characters. */}}
{{- define "taskmesh.fullname" -}}
{{- $name := .Values.fullnameOverride | default (contains "taskmesh" .Release.Name | ternary .Release.Name (printf "%s-taskmesh" .Release.Name)) -}}
{{- $name | trunc 32 | trimSuffix "-" -}}
{{- end }}

{{- define "taskmesh.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "taskmesh.fullname" .) "default") -}}
{{- end }}

{{/* What selects the pods of one role: (dict "root" $ "component" "gateway"). It never changes over the life of a release. */}}
{{- define "taskmesh.selector" -}}
app.kubernetes.io/name: taskmesh
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* What selects every pod of the release, those of its sub-charts too. */}}
{{- define "taskmesh.ofRelease" -}}
app.kubernetes.io/part-of: taskmesh
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "taskmesh.labels" -}}
{{ include "taskmesh.selector" . }}
app.kubernetes.io/part-of: taskmesh
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/*
Labels of a role's pods; the chart's version is none of them, or each new one would restart what it did not change. `spec.podLabels` can't take
the place of the chart's own.
*/}}
{{- define "taskmesh.podLabels" -}}
{{- $own := include "taskmesh.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "taskmesh" -}}
{{- if hasPrefix "worker-" .component -}}
{{- $_ := set $own "taskmesh.dev/role" "worker" -}}
{{- $_ := set $own "taskmesh.dev/job" "taskmesh-worker" -}}
{{- end -}}
{{- toYaml (merge $own (get (.spec | default dict) "podLabels" | default dict)) -}}
{{- end }}

{{- define "taskmesh.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end }}

{{/* The mesh's own image. */}}
{{- define "taskmesh.ownImage" -}}
{{- $image := .Values.image -}}
{{- include "taskmesh.image" (dict "repository" $image.repository "digest" $image.digest "tag" ($image.tag | default .Chart.AppVersion)) -}}
{{- end }}

{{- define "taskmesh.databaseSecret" -}}
{{- .Values.database.existingSecret | default .Values.postgres.authSecret -}}
{{- end }}

{{- define "taskmesh.brokerSecret" -}}
{{- .Values.broker.existingSecret | default .Values.nats.authSecret -}}
{{- end }}

{{- define "taskmesh.serverTlsSecret" -}}
{{- .Values.tls.secretName | default (printf "%s-server-tls" (include "taskmesh.fullname" .)) -}}
{{- end }}

{{- define "taskmesh.clientTlsSecret" -}}
{{- .Values.tls.clientSecretName | default (printf "%s-client-tls" (include "taskmesh.fullname" .)) -}}
{{- end }}

{{- define "taskmesh.publicUrl" -}}
{{- $rest := .Values.ingress.rest -}}
{{- if .Values.publicUrl -}}
{{- .Values.publicUrl -}}
{{- else if $rest.enabled -}}
{{- not (empty $rest.tlsSecretName) | ternary "https" "http" -}}://{{ $rest.host }}
{{- else -}}
{{- .Values.tls.enabled | ternary "https" "http" -}}://{{ include "taskmesh.fullname" . }}-gateway.{{ .Release.Namespace }}:7480
{{- end -}}
{{- end }}
