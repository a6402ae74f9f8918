module github.com/palisade-sec/palisade/tools/rootfs

go 1.26.3

replace (
	github.com/palisade-sec/palisade/api => ../../api
	github.com/palisade-sec/palisade/deploy => ../../deploy
	github.com/palisade-sec/palisade/internal => ../../internal
)

require github.com/palisade-sec/palisade/internal v0.0.0

require (
	github.com/palisade-sec/palisade/deploy v0.0.0 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/sys v0.48.0
	kernel.org/pub/linux/libs/security/libcap/cap v1.2.78 // indirect
	kernel.org/pub/linux/libs/security/libcap/psx v1.2.78 // indirect
)
