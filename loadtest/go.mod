module github.com/palisade-sec/palisade/loadtest

go 1.26.3

replace (
	github.com/palisade-sec/palisade/api => ../api
	github.com/palisade-sec/palisade/deploy => ../deploy
	github.com/palisade-sec/palisade/internal => ../internal
)

require (
	github.com/google/go-cmp v0.7.0
	github.com/palisade-sec/palisade/api v0.0.0-00010101000000-000000000000
	github.com/palisade-sec/palisade/internal v0.0.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/palisade-sec/palisade/deploy v0.0.0-00010101000000-000000000000 // indirect
	github.com/planetscale/vtprotobuf v0.6.1-0.20240319094008-0393e58bdf10 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260928230214-8a89bd6388cc // indirect
	google.golang.org/grpc v1.85.0 // indirect
	kernel.org/pub/linux/libs/security/libcap/cap v1.2.78 // indirect
	kernel.org/pub/linux/libs/security/libcap/psx v1.2.78 // indirect
)
