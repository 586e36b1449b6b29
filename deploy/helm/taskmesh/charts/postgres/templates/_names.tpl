{{- define "postgres.selector" -}}
app.kubernetes.io/name: postgres
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "postgres.podLabels" -}}
{{ include "postgres.selector" . }}
app.kubernetes.io/component: database
app.kubernetes.io/part-of: taskmesh
{{- end }}

{{- define "postgres.labels" -}}
{{ include "postgres.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
