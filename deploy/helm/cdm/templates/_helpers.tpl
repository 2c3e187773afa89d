{{- define "cdm.labels" -}}
app.kubernetes.io/name: cdm
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cdm.image" -}}
{{- $repository := required "image.repository: name the server's image" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ required "image.tag or image.digest: name the server's image" .Values.image.tag }}
{{- end -}}
{{- end }}
