{{- define "broadgate.fullname" -}}
{{- if contains "broadgate" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-broadgate" (.Release.Name | trunc 30 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "broadgate.labels" -}}
{{ include "broadgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "broadgate.selector" -}}
app.kubernetes.io/name: broadgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "broadgate.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "broadgate.secretName" -}}
{{ .Values.secret.existingSecret | default (printf "%s-secret" (include "broadgate.fullname" .)) }}
{{- end }}

{{- define "broadgate.appsSecret" -}}
{{ .Values.apps.existingSecret | default (printf "%s-apps" (include "broadgate.fullname" .)) }}
{{- end }}

{{/* An address that listens on every interface: host for host:port. */}}
{{- define "broadgate.any" -}}
{{ if eq .Values.ipFamily "IPv6" }}[::]{{ else }}0.0.0.0{{ end }}
{{- end }}

{{/* The pod's address, as in host:port. */}}
{{- define "broadgate.podHost" -}}
{{ if eq .Values.ipFamily "IPv6" }}[$(POD_IP)]{{ else }}$(POD_IP){{ end }}
{{- end }}

{{/* All registers. They are named by their pods, whose names stay while addresses change. */}}
{{- define "broadgate.registers" -}}
{{- $name := printf "%s-register" (include "broadgate.fullname" .) }}
{{- $all := list }}
{{- range $index := until (int .Values.register.replicas) }}
{{- $all = append $all (printf "%s-%d.%s.%s.svc:7100" $name $index $name $.Release.Namespace) }}
{{- end }}
{{- join "," $all }}
{{- end }}

{{/* Environment of every process, Broadgate's own and workers with the SDK. */}}
{{- define "broadgate.env" -}}
- name: BROADGATE_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: POD_IP
  valueFrom: { fieldRef: { fieldPath: status.podIP } }
- name: BROADGATE_REGISTER
  value: {{ include "broadgate.registers" . | quote }}
- name: BROADGATE_SECRET
  valueFrom: { secretKeyRef: { name: {{ include "broadgate.secretName" . }}, key: secret } }
{{- if .Values.tls.secretName }}
- name: BROADGATE_CLUSTER__TLS__CA
  value: /etc/broadgate/tls/ca.crt
- name: BROADGATE_CLUSTER__TLS__CERT
  value: /etc/broadgate/tls/tls.crt
- name: BROADGATE_CLUSTER__TLS__KEY
  value: /etc/broadgate/tls/tls.key
- name: BROADGATE_CLUSTER__TLS__SERVER_NAME
  value: {{ .Values.tls.serverName | quote }}
{{- end }}
{{- end }}

{{/* Environment of Broadgate's own roles besides. */}}
{{- define "broadgate.roleEnv" -}}
- name: BROADGATE_CONFIG
  value: /etc/broadgate/config/broadgate.toml
- name: BROADGATE_METRICS__BIND
  value: {{ printf "%s:9100" (include "broadgate.any" .) | quote }}
{{- if .Values.tls.metrics }}
- name: BROADGATE_METRICS__TLS
  value: "true"
{{- end }}
# One allocator arena: what a storm of clients took is given back sooner.
- name: MALLOC_ARENA_MAX
  value: "1"
{{- end }}

{{- define "broadgate.mounts" -}}
{{- if .Values.tls.secretName }}
- name: tls
  mountPath: /etc/broadgate/tls
  readOnly: true
{{- end }}
{{- end }}

{{- define "broadgate.volumes" -}}
{{- if .Values.tls.secretName }}
- name: tls
  secret: { secretName: {{ .Values.tls.secretName }} }
{{- end }}
{{- end }}

{{- define "broadgate.roleMounts" -}}
- name: config
  mountPath: /etc/broadgate/config
  readOnly: true
{{- end }}

{{- define "broadgate.roleVolumes" -}}
- name: config
  configMap: { name: {{ include "broadgate.fullname" .root }}-{{ .role }} }
{{- end }}

{{- define "broadgate.probes" -}}
{{- if and .Values.tls.metrics (not .Values.tls.secretName) }}
{{- fail "tls.metrics: name the certificates in tls.secretName" }}
{{- end }}
# Does it run? It answers also while no register is there, and while it drains.
livenessProbe:
  {{- if .Values.tls.metrics }}
  # The kubelet has no certificate of the cluster; the process's own environment has.
  exec: { command: [broadgate, health] }
  {{- else }}
  httpGet: { path: /healthz, port: metrics }
  {{- end }}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
# May it get traffic? Unready at once when it begins to stop.
readinessProbe:
  {{- if .Values.tls.metrics }}
  exec: { command: [broadgate, health, --ready] }
  {{- else }}
  httpGet: { path: /readyz, port: metrics }
  {{- end }}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 1
{{- end }}

{{/* What all pods have in common. `role`, `values` (of the role) and `root`. */}}
{{- define "broadgate.podSpec" -}}
# Variables that describe services are of no use to Broadgate, and begin with its name.
enableServiceLinks: false
automountServiceAccountToken: false
{{- with .root.Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ toYaml .root.Values.podSecurityContext | nindent 2 }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
{{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "broadgate.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.role }}
{{- end }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "broadgate.podAnnotations" -}}
{{- with .values.podAnnotations }}
{{ toYaml . }}
{{- end }}
# A changed configuration restarts the pods; apps and certificates are read again without it.
checksum/config: {{ include (printf "broadgate.%sConfig" .role) .root | sha256sum }}
{{- end }}
