module taskmesh.example/conformance

go 1.24.0

require (
	google.golang.org/genproto/googleapis/rpc v0.0.0-20250818200422-3122310a409c
	google.golang.org/grpc v1.76.0
	google.golang.org/protobuf v1.36.10
)

require google.golang.org/grpc/cmd/protoc-gen-go-grpc v1.5.1 // indirect

require (
	golang.org/x/net v0.42.0 // indirect
	golang.org/x/sys v0.34.0 // indirect
	golang.org/x/text v0.27.0 // indirect
)

tool (
	google.golang.org/grpc/cmd/protoc-gen-go-grpc
	google.golang.org/protobuf/cmd/protoc-gen-go
)
