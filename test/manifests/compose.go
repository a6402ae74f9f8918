package manifests

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/palisade-sec/palisade/internal/privilege"
)

// LoadCompose decodes a compose file as Docker Compose does: against the schema, which knows every key.
func LoadCompose(ctx context.Context, path string, raw []byte) (*types.Project, error) {
	return loader.LoadWithContext(ctx, types.ConfigDetails{
		WorkingDir:  filepath.Dir(path),
		ConfigFiles: []types.ConfigFile{{Filename: path, Content: raw}},
		Environment: types.Mapping{},
	})
}

// ComposeContainers are the services of a project.
func ComposeContainers(project *types.Project, socketGroup uint32) ([]Container, error) {
	var containers []Container
	for _, name := range project.ServiceNames() {
		service := project.Services[name]
		uid, _, _ := strings.Cut(service.User, ":")
		n, err := strconv.ParseInt(uid, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: user %q is not a number: an image's name for it proves nothing", name, service.User)
		}
		containers = append(containers, Container{
			Process: name, UID: n,
			InSocketGroup:   slices.Contains(service.GroupAdd, strconv.Itoa(int(socketGroup))),
			Drop:            service.CapDrop,
			Add:             service.CapAdd,
			Privileged:      service.Privileged,
			NoNewPrivileges: slices.Contains(service.SecurityOpt, "no-new-privileges:true"),
			ReadOnlyRoot:    service.ReadOnly,
			HostPID:         service.Pid == "host",
			Network:         composeNetwork(project, service),
			HostNamespaces:  composeNamespaces(service),
			Unconfined:      composeUnconfined(service),
			Devices:         composeDevices(service),
			MemoryBytes:     int64(service.MemLimit),
			CPUs:            float64(service.CPUS),
			PIDs:            service.PidsLimit,
			Mounts:          composeMounts(project, service),
			RestartsAlways:  service.Restart == types.RestartPolicyAlways,
		})
	}
	return containers, nil
}

// composeNetwork is how far a service reaches: it serves if it publishes ports, and only 8083 and 8084 count; it has
// egress if every network it is in leads nowhere but to other services.
func composeNetwork(project *types.Project, service types.ServiceConfig) privilege.Network {
	if service.NetworkMode == "none" {
		return privilege.NetworkNone
	}
	if service.NetworkMode != "" {
		return privilege.Network("mode " + service.NetworkMode)
	}
	var ports []string
	for _, port := range service.Ports {
		ports = append(ports, port.Published+":"+strconv.FormatUint(uint64(port.Target), 10))
	}
	if slices.Equal(ports, []string{"8083:8083", "8084:8084"}) {
		return privilege.NetworkServe
	}
	if len(ports) > 0 {
		return privilege.Network(fmt.Sprintf("ports %v", ports))
	}
	for name := range service.Networks {
		if !project.Networks[name].Internal {
			return privilege.Network("network " + name)
		}
	}
	return privilege.NetworkEgress
}

func composeNamespaces(service types.ServiceConfig) []string {
	var shared []string
	for name, mode := range map[string]string{
		"network": service.NetworkMode, "ipc": service.Ipc, "user": service.UserNSMode, "uts": service.Uts, "cgroup": service.Cgroup,
	} {
		if mode == "host" {
			shared = append(shared, name)
		}
	}
	return sorted(shared)
}

func composeUnconfined(service types.ServiceConfig) []string {
	var off []string
	for _, option := range service.SecurityOpt {
		if option != "no-new-privileges:true" {
			off = append(off, option)
		}
	}
	return off
}

func composeDevices(service types.ServiceConfig) []string {
	devices := slices.Clone(service.DeviceCgroupRules)
	for _, device := range service.Devices {
		devices = append(devices, device.Source)
	}
	return devices
}

// composeMounts leaves out the host's path of a configuration file that lies beside the manifest.
func composeMounts(project *types.Project, service types.ServiceConfig) []Mount {
	var mounts []Mount
	for _, volume := range service.Volumes {
		m := Mount{Target: volume.Target, ReadOnly: volume.ReadOnly}
		if volume.Type != types.VolumeTypeVolume {
			m.Host = volume.Source
		}
		if filepath.Dir(m.Host) == project.WorkingDir {
			m.Host = ""
		}
		mounts = append(mounts, m)
	}
	for target := range slices.Values(service.Tmpfs) {
		mounts = append(mounts, Mount{Target: target})
	}
	return mounts
}
