{{- define "spantap.selector" -}}
app.kubernetes.io/name: spantap
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "spantap.labels" -}}
{{ include "spantap.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "spantap.name" -}}
{{- if contains "spantap" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-spantap{{ end }}
{{- end }}

{{- define "spantap.configuration" -}}
{{- $file := deepCopy .Values.config }}
{{- with .Values.discovery }}{{ $_ := set $file "discovery" . }}{{ end }}
{{- if .Values.spool.enabled }}
{{- $spool := dict "path" "/var/lib/spantap/spool" "max_size" .Values.spool.maxSize }}
{{- $_ := set $file "spantap" (mergeOverwrite (dict "spool" $spool) ($file.spantap | default dict)) }}
{{- end }}
{{- if .Values.agent.contextPropagation }}
{{- $_ := set $file "ebpf" (mergeOverwrite (dict "context_propagation" "headers") ($file.ebpf | default dict)) }}
{{- end }}
{{- toYaml $file }}
{{- end }}
