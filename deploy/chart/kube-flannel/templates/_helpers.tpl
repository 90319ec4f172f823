{{/* Labels of every object: upstream's two first, as selectors depend on them. */}}
{{- define "flannel.selector" -}}
tier: node
app: flannel
{{- end -}}

{{- define "flannel.labels" -}}
{{- merge (include "flannel.selector" . | fromYaml) (deepCopy .Values.global.commonLabels) | toYaml -}}
{{- end -}}

{{- define "flannel.image" -}}
{{ printf "%s:%s" .repository (toString .tag) }}
{{- end -}}

{{/* net-conf.json, as an object: what is not set is not written, so that the daemon's defaults hold. */}}
{{- define "flannel.netConf" -}}
{{- $flannel := .Values.flannel -}}
{{- if not (or .Values.podCidr .Values.podCidrv6) -}}
{{- fail "set podCidr, podCidrv6 or both" -}}
{{- end -}}
{{- if not (has $flannel.backend (list "vxlan" "host-gw" "alloc")) -}}
{{- fail (printf "flannel.backend %q: this flannel has vxlan, host-gw and alloc" $flannel.backend) -}}
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
