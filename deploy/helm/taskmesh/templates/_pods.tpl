{{/* Parts that the pods of all roles share. */}}

{{/* Pod Security Standard "restricted". */}}
{{- define "taskmesh.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.podSecurity.runAsUser }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
{{- end }}
{{- with .Values.podSecurity.fsGroup }}
fsGroup: {{ . }}
{{- end }}
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "taskmesh.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- end }}

{{/*
Alive: the event loop turns, whatever database, broker and coordinators do. Ready: the role can serve. Started: the process answers at all,
within two minutes on a slow node. None of the three needs a credential: TASKMESH_HEALTH_ADDRESS.
*/}}
{{- define "taskmesh.probes" -}}
startupProbe:
  httpGet: { path: /livez, port: health }
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /livez, port: health }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: health }
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{/* (dict "root" $ "component" … "spec" .Values.gateway): where pods go. */}}
{{- define "taskmesh.placement" -}}
{{- with .spec.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .spec.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .spec.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .spec.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if .root.Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $.root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels: {{ include "taskmesh.selector" $ | nindent 8 }}
    # Pods of the version before don't count during a rollout.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}

{{- define "taskmesh.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Environment of every role. */}}
{{- define "taskmesh.commonEnv" -}}
- { name: TASKMESH_LOG_LEVEL, value: {{ .Values.logLevel }} }
- { name: TASKMESH_HEALTH_ADDRESS, value: "0.0.0.0:7470" }
- { name: TASKMESH_TOKEN_FILE, value: /run/taskmesh/secrets/token }
{{- include "taskmesh.trustedCaEnv" . }}
{{- with .Values.tracing.endpoint }}
- { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }} }
- { name: OTEL_TRACES_SAMPLER, value: {{ $.Values.tracing.sampler }} }
{{- with $.Values.tracing.samplerArg }}
- { name: OTEL_TRACES_SAMPLER_ARG, value: {{ . | quote }} }
{{- end }}
{{- end }}
{{- end }}

{{- define "taskmesh.serverTlsEnv" -}}
{{- if .Values.tls.enabled }}
- { name: TASKMESH_TLS_CERT, value: /run/taskmesh/tls/tls.crt }
- { name: TASKMESH_TLS_KEY, value: /run/taskmesh/tls/tls.key }
{{- end }}
{{- end }}

{{/* Further variables: a map of name to text. */}}
{{- define "taskmesh.moreEnv" -}}
{{- range $name, $value := . }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end }}

{{/* (dict "root" $ "sources" (list …)): the token and what else the role reads, as files; Secrets that change reach them without a restart. */}}
{{- define "taskmesh.secretsVolume" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .root.Values.auth.existingSecret }}
          items: [{ key: {{ .root.Values.auth.key }}, path: token }]
      {{- with .sources }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end }}

{{- define "taskmesh.secretVolume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
{{- end }}

{{/* (dict "root" $ "component" … "name" … "spec" …) */}}
{{- define "taskmesh.autoscaler" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .name }}
  labels: {{ include "taskmesh.labels" . | nindent 4 }}
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: {{ .name }} }
  minReplicas: {{ .spec.autoscaling.minReplicas }}
  maxReplicas: {{ .spec.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: { type: Utilization, averageUtilization: {{ .spec.autoscaling.cpuPercent }} }
  behavior:
    # Each pod that goes has to drain: not on every dip.
    scaleDown: { stabilizationWindowSeconds: 300 }
{{- end }}

{{- define "taskmesh.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  labels: {{ include "taskmesh.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .spec.pdb.maxUnavailable }}
  # A pod that is not ready serves nobody: it must not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{ include "taskmesh.selector" . | nindent 6 }}
{{- end }}

{{/* A certificate authority of yours, for every connection that a process makes. */}}
{{- define "taskmesh.trustedCaEnv" -}}
{{- if .Values.trustedCa.existingSecret }}
- { name: NODE_EXTRA_CA_CERTS, value: /run/taskmesh/trusted/ca.crt }
{{- end }}
{{- end }}

{{- define "taskmesh.trustedCaMount" -}}
{{- if .Values.trustedCa.existingSecret }}
- { name: trusted, mountPath: /run/taskmesh/trusted, readOnly: true }
{{- end }}
{{- end }}

{{- define "taskmesh.trustedCaVolume" -}}
{{- with .Values.trustedCa }}
{{- if .existingSecret }}
- name: trusted
  secret:
    secretName: {{ .existingSecret }}
    items: [{ key: {{ .key }}, path: ca.crt }]
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end }}
