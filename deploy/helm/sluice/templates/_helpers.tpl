{{/* Labels of everything. */}}
{{- define "sluice.labels" -}}
app.kubernetes.io/part-of: sluice
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels of pods: nothing that changes when nothing else does, or pods would be replaced. */}}
{{- define "sluice.podLabels" -}}
app.kubernetes.io/part-of: sluice
istio.io/dataplane-mode: none
{{- end }}

{{- define "sluice.image" -}}
{{- $repository := required "image.repository is needed: no image is published, make one with scripts/image or deploy/Dockerfile" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "sluice.pullSecrets" -}}
imagePullSecrets:
  {{- range .Values.image.pullSecrets }}
  - name: {{ . }}
  {{- else }} []
  {{- end }}
{{- end }}

{{/* Namespaces outside of the mesh, separated by commas. */}}
{{- define "sluice.excludedNamespaces" -}}
{{- $all := list "kube-system" .Release.Namespace -}}
{{- if eq .Values.control.mode "istiod" }}{{ $all = append $all .Values.istiod.namespace }}{{ end -}}
{{- concat $all .Values.excludeNamespaces | uniq | sortAlpha | join "," -}}
{{- end }}

{{/* The name that control's certificate is for. */}}
{{- define "sluice.controlName" -}}
sluice-control.{{ .Release.Namespace }}.svc
{{- end }}

{{/* Settings of the log and, for those who talk to it, of the API server. */}}
{{- define "sluice.apiServerEnv" -}}
{{- with .Values.apiServer.host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ . | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ $.Values.apiServer.port | quote }}
{{- end }}
# Lines of the API client itself say again what ours say.
- name: RUST_LOG
  value: {{ printf "%s,kube_client::client::builder=off" .Values.log.level | quote }}
{{- end }}

{{/* A map as environment, in the order of its names. */}}
{{- define "sluice.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* Wherever pods run, also where nothing else may. */}}
{{- define "sluice.tolerateEverything" -}}
tolerations:
  - operator: Exists
{{- end }}

{{- define "sluice.linux" -}}
nodeSelector:
  kubernetes.io/os: linux
  {{- with . }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
