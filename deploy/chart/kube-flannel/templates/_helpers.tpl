{{/* metadata.labels and .annotations. Argument: root, and own, a list of what was asked for this object, first wins. */}}
{{- define "flannel.metadata" -}}
{{- $labels := dict -}}
{{- $annotations := dict -}}
{{- range append .own (dict "labels" .root.Values.global.commonLabels "annotations" .root.Values.global.commonAnnotations) -}}
{{- $labels = merge $labels (deepCopy (.labels | default dict)) -}}
{{- $annotations = merge $annotations (deepCopy (.annotations | default dict)) -}}
{{- end -}}
labels:
  {{- merge $labels (dict "tier" "node" "app" "flannel") | toYaml | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* REPOSITORY:TAG of the daemon. A values file of upstream's names an image that this DaemonSet does not fit. */}}
{{- define "flannel.image" -}}
{{- $public := list "ghcr.io/flannel-io/flannel" "docker.io/flannel/flannel" "flannel/flannel" "quay.io/coreos/flannel" -}}
{{- if has .Values.flannel.image.repository $public -}}
{{- fail (printf "flannel.image.repository %q is upstream's image: set it, and flannel.image.tag, to the image that `make release` wrote" .Values.flannel.image.repository) -}}
{{- end -}}
{{- include "flannel.reference" .Values.flannel.image -}}
{{- end -}}

{{- define "flannel.reference" -}}
{{ printf "%s:%s" .repository (toString .tag) }}
{{- end -}}

{{/* net-conf.json, as an object: what is not set is not written, so that the daemon's defaults hold. */}}
{{- define "flannel.netConf" -}}
{{- $flannel := .Values.flannel -}}
{{- if not (or .Values.podCidr .Values.podCidrv6) -}}
{{- fail "set podCidr, podCidrv6 or both" -}}
{{- end -}}
{{- if not (has $flannel.backend (list "vxlan" "wireguard" "host-gw" "ipip" "udp" "alloc")) -}}
{{- fail (printf "flannel.backend %q: this flannel has vxlan, wireguard, host-gw, ipip, udp and alloc" $flannel.backend) -}}
{{- end -}}
{{- if and .Values.podCidrv6 (has $flannel.backend (list "ipip" "udp")) -}}
{{- fail (printf "podCidrv6: the backend %s carries IPv4 only; use vxlan, wireguard or host-gw" $flannel.backend) -}}
{{- end -}}
{{- $conf := dict "EnableNFTables" $flannel.enableNFTables -}}
{{- if .Values.podCidr -}}
{{- $_ := set $conf "Network" .Values.podCidr -}}
{{- else -}}
{{- $_ := set $conf "EnableIPv4" false -}}
{{- end -}}
{{- if .Values.podCidrv6 -}}
{{- $_ := set $conf "EnableIPv6" true -}}
{{- $_ := set $conf "IPv6Network" .Values.podCidrv6 -}}
{{- end -}}
{{- $backend := dict "Type" $flannel.backend -}}
{{- if and (eq $flannel.backend "udp") $flannel.backendPort -}}
{{- $_ := set $backend "Port" (int $flannel.backendPort) -}}
{{- end -}}
{{- if and (eq $flannel.backend "ipip") $flannel.directRouting -}}
{{- $_ := set $backend "DirectRouting" $flannel.directRouting -}}
{{- end -}}
{{- if eq $flannel.backend "wireguard" -}}
{{- range $key, $value := dict "ListenPort" $flannel.backendPort "ListenPortV6" $flannel.backendPortv6 "MTU" $flannel.mtu "PersistentKeepaliveInterval" $flannel.keepaliveInterval -}}
{{- if $value }}{{ $_ := set $backend $key (int $value) }}{{ end -}}
{{- end -}}
{{- range $key, $value := dict "PSK" $flannel.psk "Mode" $flannel.tunnelMode -}}
{{- if $value }}{{ $_ := set $backend $key $value }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if eq $flannel.backend "vxlan" -}}
{{- range $key, $value := dict "Port" $flannel.backendPort "VNI" $flannel.vni "MTU" $flannel.mtu -}}
{{- if $value }}{{ $_ := set $backend $key (int $value) }}{{ end -}}
{{- end -}}
{{- range $key, $value := dict "GBP" $flannel.GBP "DirectRouting" $flannel.directRouting -}}
{{- if $value }}{{ $_ := set $backend $key $value }}{{ end -}}
{{- end -}}
{{- end -}}
{{- set $conf "Backend" $backend | toPrettyJson -}}
{{- end -}}
