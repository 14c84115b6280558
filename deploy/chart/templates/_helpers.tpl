{{- define "isthmus.selector" -}}
app.kubernetes.io/name: isthmus
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "isthmus.labels" -}}
{{ include "isthmus.selector" .component }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "isthmus.cloudAnnotations" -}}
{{- $service := .Values.hub.service -}}
{{- if eq $service.type "LoadBalancer" -}}
{{- if eq $service.cloud "aws" -}}
service.beta.kubernetes.io/aws-load-balancer-type: nlb
service.beta.kubernetes.io/aws-load-balancer-scheme: internal
service.beta.kubernetes.io/aws-load-balancer-internal: "true"
{{- else if eq $service.cloud "gcp" -}}
networking.gke.io/load-balancer-type: Internal
networking.gke.io/internal-load-balancer-allow-global-access: "true"
{{- else if eq $service.cloud "azure" -}}
service.beta.kubernetes.io/azure-load-balancer-internal: "true"
{{- else if eq $service.cloud "alibaba" -}}
service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type: intranet
{{- else if eq $service.cloud "ibm" -}}
service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type: private
{{- else if eq $service.cloud "openstack" -}}
service.beta.kubernetes.io/openstack-internal-load-balancer: "true"
{{- else if eq $service.cloud "oracle" -}}
service.beta.kubernetes.io/oci-load-balancer-internal: "true"
{{- end -}}
{{- end -}}
{{- end }}

{{- define "isthmus.hubFollowsPeers" -}}
{{- if or .Values.hub.endpointSlices (eq .Values.profile "agentless") -}}
true
{{- end -}}
{{- end }}

{{- define "isthmus.hubWritesPeers" -}}
{{- if and .Values.clusterPeers.enabled (or (eq .Values.profile "agent") (include "isthmus.hubFollowsPeers" .)) -}}
true
{{- end -}}
{{- end }}

{{- define "isthmus.hubWritesInNamespace" -}}
{{- if or .Values.hub.store.etcd (include "isthmus.hubWritesPeers" .) -}}
true
{{- end -}}
{{- end }}

{{- define "isthmus.hubPod" -}}
serviceAccountName: isthmus-hub
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
enableServiceLinks: false
terminationGracePeriodSeconds: 30
{{- if .Values.hub.priorityClass }}
priorityClassName: {{ .Values.hub.priorityClass | quote }}
{{- end }}
{{- if .Values.image.pullSecrets }}
imagePullSecrets:
{{- range .Values.image.pullSecrets }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
{{- if .Values.hub.nodeSelector }}
nodeSelector:
  {{- toYaml .Values.hub.nodeSelector | nindent 2 }}
{{- end }}
{{- if .Values.hub.tolerations }}
tolerations:
  {{- toYaml .Values.hub.tolerations | nindent 2 }}
{{- end }}
{{- if .Values.hub.store.etcd }}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "isthmus.selector" "hub" | nindent 6 }}
{{- end }}
containers:
- name: hub
  image: {{ printf "%s/mesh-apiserver:%s" .Values.image.registry .Values.image.tag | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
  - {{ printf "--cluster-name=%s" .Values.cluster.name | quote }}
  - --cluster-id={{ .Values.cluster.id }}
  - --max-connected-clusters={{ .Values.cluster.maxConnectedClusters }}
  - --source=kubernetes
  - {{ printf "--listen=%s:2379" .Values.hub.bindAddress | quote }}
  - {{ printf "--admin-listen=%s:9980" .Values.hub.bindAddress | quote }}
  - --tls-dir=/etc/isthmus/hub
  {{- if .Values.hub.store.etcd }}
  - {{ printf "--store=etcd:%s" (join "," .Values.hub.store.etcd) | quote }}
  - --store-tls-dir=/etc/isthmus/store
  - --replica-name=$(POD_NAME)
  - --leader-elect-resource-name=isthmus-hub
  {{- else }}
  - --data-dir=/var/lib/isthmus
  {{- end }}
  {{- if .Values.cluster.region }}
  - {{ printf "--region=%s" .Values.cluster.region | quote }}
  {{- end }}
  {{- if include "isthmus.hubWritesPeers" . }}
  - {{ printf "--agent-peers-secret=%s/%s" .Release.Namespace .Values.agent.peersSecret | quote }}
  - --agent-peers-dir=/var/lib/cilium/clustermesh
  - --agent-tls-dir=/etc/isthmus/remote
  {{- end }}
  {{- if include "isthmus.hubFollowsPeers" . }}
  - --peers=/var/lib/cilium/clustermesh
  {{- if .Values.clusterPeers.enabled }}
  - --peers-objects
  - --peers-tls-dir=/etc/isthmus/remote
  {{- end }}
  {{- end }}
  {{- if eq .Values.profile "agentless" }}
  - --profile=agentless
  {{- end }}
  - --log-format={{ .Values.logFormat }}
  env:
  - name: POD_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  ports:
  - name: etcd
    containerPort: 2379
    protocol: TCP
  - name: admin
    containerPort: 9980
    protocol: TCP
  startupProbe:
    httpGet:
      path: /livez
      port: 9980
    periodSeconds: 2
    failureThreshold: 60
    timeoutSeconds: 3
  livenessProbe:
    httpGet:
      path: /livez
      port: 9980
    periodSeconds: 10
    failureThreshold: 6
    timeoutSeconds: 3
  readinessProbe:
    httpGet:
      path: /readyz
      port: 9980
    periodSeconds: 5
    failureThreshold: 2
    timeoutSeconds: 3
  resources:
    requests:
      {{- toYaml .Values.hub.resources.requests | nindent 6 }}
    limits:
      {{- toYaml .Values.hub.resources.limits | nindent 6 }}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop:
      - ALL
  volumeMounts:
  - name: tls
    mountPath: /etc/isthmus/hub
    readOnly: true
  {{- if .Values.hub.store.etcd }}
  - name: store-tls
    mountPath: /etc/isthmus/store
    readOnly: true
  {{- else }}
  - name: data
    mountPath: /var/lib/isthmus
    readOnly: false
  {{- end }}
  {{- if include "isthmus.hubFollowsPeers" . }}
  - name: remote-tls
    mountPath: /etc/isthmus/remote
    readOnly: true
  - name: peers
    mountPath: /var/lib/cilium/clustermesh
    readOnly: true
  {{- end }}
volumes:
- name: tls
  secret:
    secretName: {{ .Values.hub.tlsSecret | quote }}
    defaultMode: 288
{{- if .Values.hub.store.etcd }}
- name: store-tls
  secret:
    secretName: {{ .Values.hub.store.tlsSecret | quote }}
    defaultMode: 288
{{- end }}
{{- if include "isthmus.hubFollowsPeers" . }}
- name: remote-tls
  secret:
    secretName: {{ .Values.agent.remoteTlsSecret | quote }}
    defaultMode: 288
    optional: true
- name: peers
  secret:
    secretName: {{ .Values.agent.peersSecret | quote }}
    defaultMode: 288
    optional: true
{{- end }}
{{- end }}
