{{- define "nats.selector" -}}
app.kubernetes.io/name: nats
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "nats.podLabels" -}}
{{ include "nats.selector" . }}
app.kubernetes.io/component: broker
app.kubernetes.io/part-of: taskmesh
{{- end }}

{{- define "nats.labels" -}}
{{ include "nats.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
