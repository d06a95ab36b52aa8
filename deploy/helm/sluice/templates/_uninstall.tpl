{{/* A job of the removal: root, name, weight, task and the DaemonSet that it is about. */}}
{{- define "sluice.uninstallJob" -}}
{{- with .root -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $.name }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "sluice.labels" . | nindent 4 }}
  annotations:
    helm.sh/hook: pre-delete
    helm.sh/hook-weight: {{ $.weight | quote }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  # It asks again by itself; when it gives up, its log says why, and Helm is to hear of it.
  backoffLimit: 0
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {{ $.name }}
        {{- include "sluice.podLabels" . | nindent 8 }}
    spec:
      serviceAccountName: sluice-uninstall
      restartPolicy: Never
      # What connects pods to a network is just being changed.
      hostNetwork: true
      {{- include "sluice.pullSecrets" . | nindent 6 }}
      {{- include "sluice.linux" .Values.control.nodeSelector | nindent 6 }}
      {{- include "sluice.tolerateEverything" . | nindent 6 }}
      containers:
        - name: {{ $.task }}
          image: {{ include "sluice.image" . }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          command:
            - /usr/local/bin/sluice-control
            - {{ $.task }}
            - {{ $.set }}
            - --patience={{ .Values.uninstall.timeoutSeconds }}
          env:
            - name: POD_NAMESPACE
              valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
            {{- include "sluice.apiServerEnv" . | nindent 12 }}
          securityContext:
            # It talks to the API server, and nothing else.
            runAsNonRoot: true
            runAsUser: 65532
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: { drop: [ALL] }
            seccompProfile: { type: RuntimeDefault }
{{- end }}
{{- end }}
