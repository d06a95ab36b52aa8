{{/* What the agent and the one that takes everything off the node have in common. */}}

{{- define "sluice.agentPod" -}}
serviceAccountName: sluice-node-agent
# The environment is for settings.
enableServiceLinks: false
# Its rules for the kubelet's probes are rules of the node's own network, and it must be there
# before pods have one.
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- if .Values.nodeAgent.hostPID }}
# The runtime may name a pod's process instead of its namespace, and the last way to a pod that
# nobody knows is its processes.
hostPID: true
{{- end }}
{{ include "sluice.pullSecrets" . }}
{{ include "sluice.linux" .Values.nodeAgent.nodeSelector }}
{{ include "sluice.tolerateEverything" . }}
{{- with .Values.nodeAgent.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
priorityClassName: {{ .Values.nodeAgent.priorityClassName | quote }}
{{- end }}

{{- define "sluice.agentContainer" -}}
image: {{ include "sluice.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: NODE_NAME
    valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
  - name: PATH
    value: /usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  - name: RUN_DIR
    value: {{ printf "%s/agent" .Values.runDir | quote }}
  - name: INPOD_UDS
    value: {{ printf "%s/ztunnel.sock" .Values.zdsDir | quote }}
  - name: CRI_SOCKET
    value: {{ .Values.nodeAgent.criSocket | quote }}
  - name: ADMIN_ADDR
    value: {{ .Values.nodeAgent.adminAddress | quote }}
  - name: PROBE_SOURCE
    value: {{ .Values.nodeAgent.probeSource }}
  - name: ON_ESCAPED
    value: {{ .Values.nodeAgent.onEscaped }}
  - name: STARTUP_TAINT
    value: {{ .Values.nodeAgent.startupTaint | quote }}
  - name: AMBIENT_DNS_CAPTURE
    value: {{ .Values.nodeAgent.dnsCapture | quote }}
  - name: EXCLUDE_NAMESPACES
    value: {{ include "sluice.excludedNamespaces" . | quote }}
  - name: INSTALL_CNI
    value: {{ .Values.nodeAgent.installCni | quote }}
  - name: HOST_ROOT
    value: /host
  {{- with .Values.nodeAgent.cni }}
  - name: CNI_CONF_DIR
    value: {{ .confDir | quote }}
  - name: CNI_BIN_DIR
    value: {{ .binDir | quote }}
  - name: CNI_CACHE_DIR
    value: {{ .cacheDir | quote }}
  - name: CNI_CONF_NAME
    value: {{ .confName | quote }}
  - name: CNI_PLUGIN
    value: {{ ternary "" "/usr/local/bin/sluice-cni" (eq $.Values.nodeAgent.installCni "off") | quote }}
  - name: CNI_LOG_FILE
    value: {{ .logFile | quote }}
  - name: CNI_TIMEOUT
    value: {{ .timeout | quote }}
  - name: CNI_EXCLUDE_NAMESPACES
    value: {{ join "," .excludeNamespaces | quote }}
  - name: WHEN_AGENT_ABSENT
    value: {{ .whenAgentAbsent }}
  {{- end }}
  - name: LOG_FORMAT
    value: {{ .Values.log.format }}
  {{- include "sluice.apiServerEnv" . | nindent 2 }}
  {{- with .Values.nodeAgent.env }}
  {{- include "sluice.env" . | nindent 2 }}
  {{- end }}
securityContext:
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  # What it writes on the node is root's alone, and the plugin believes nobody else.
  runAsUser: 0
  runAsGroup: 0
  capabilities:
    drop: [ALL]
    add:
      # Enters pods' network namespaces (setns), and makes some of its own, in which it tries
      # the rules before it writes them into a pod.
      - SYS_ADMIN
      # Writes rules, policy routes and conntrack entries there, ends connections, and opens
      # the listeners, which are transparent.
      - NET_ADMIN
      {{- if .Values.nodeAgent.hostPID }}
      # Opens the namespace of another process (/proc/PID/ns/net).
      - SYS_PTRACE
      {{- end }}
      {{- if eq .Values.nodeAgent.installCni "append" }}
      # Keeps owner and mode of the primary plugin's file when it writes that anew.
      - CHOWN
      - FOWNER
      {{- end }}
  seccompProfile: { type: RuntimeDefault }
  # The usual profile of runtimes forbids to look at processes outside of the container, and so
  # to open their namespaces.
  appArmorProfile: { type: Unconfined }
  {{- with .Values.nodeAgent.seLinuxOptions }}
  seLinuxOptions: {{- toYaml . | nindent 4 }}
  {{- end }}
volumeMounts: {{- include "sluice.agentMounts" . | nindent 2 }}
{{- end }}

{{- define "sluice.agentMounts" -}}
# The plugin's socket, the lock, and what is remembered about pods: paths that the runtime sees
# as we do.
- name: run
  mountPath: {{ .Values.runDir }}
# ztunnel's socket.
- name: zds
  mountPath: {{ .Values.zdsDir }}
# Namespaces that runtimes have given a name; those of later pods must appear here too.
- name: netns
  mountPath: {{ .Values.nodeAgent.netnsDir }}
  mountPropagation: HostToContainer
  readOnly: true
# The runtime's socket. It is asked, and told nothing; a folder, because a runtime that restarts
# makes another socket.
- name: cri
  mountPath: {{ dir .Values.nodeAgent.criSocket }}
  readOnly: true
{{- with .Values.nodeAgent.cni }}
{{- if and .confDir .binDir }}
# Our list or entry in the runtime's configuration.
- name: cni-conf
  mountPath: /host{{ .confDir }}
# The plugin's program, which the runtime executes.
- name: cni-bin
  mountPath: /host{{ .binDir }}
# Which sandboxes were attached with our plugin: looked at when everything is removed.
- name: cni-cache
  mountPath: /host{{ .cacheDir }}
  readOnly: true
{{- with .logFile }}
# The plugin's log, which the runtime's process writes: removed with everything else.
- name: cni-log
  mountPath: /host{{ dir . }}
{{- end }}
{{- else }}
# The folders of the runtime are to be found, by its configuration, wherever they are.
- name: host
  mountPath: /host
  mountPropagation: HostToContainer
{{- end }}
{{- end }}
{{- end }}

{{- define "sluice.agentVolumes" -}}
- name: run
  hostPath: { path: {{ .Values.runDir }}, type: DirectoryOrCreate }
- name: zds
  hostPath: { path: {{ .Values.zdsDir }}, type: DirectoryOrCreate }
- name: netns
  hostPath: { path: {{ .Values.nodeAgent.netnsDir }}, type: DirectoryOrCreate }
- name: cri
  hostPath: { path: {{ dir .Values.nodeAgent.criSocket }} }
{{- with .Values.nodeAgent.cni }}
{{- if and .confDir .binDir }}
- name: cni-conf
  hostPath: { path: {{ .confDir }}, type: DirectoryOrCreate }
- name: cni-bin
  hostPath: { path: {{ .binDir }}, type: DirectoryOrCreate }
- name: cni-cache
  hostPath: { path: {{ .cacheDir }}, type: DirectoryOrCreate }
{{- with .logFile }}
- name: cni-log
  hostPath: { path: {{ dir . }}, type: DirectoryOrCreate }
{{- end }}
{{- else }}
- name: host
  hostPath: { path: / }
{{- end }}
{{- end }}
{{- end }}
